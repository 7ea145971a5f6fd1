//! The order in which one call tries its targets (RFC 2782).

/// Orders what has a rank, a weight and a group: by rank; within, the groups by lot with their weight
/// as the odds; within, as they stand. `roll` gives a number from 0 to its argument.
pub(crate) fn draw<T: Copy>(
    items: &[T],
    key: impl Fn(&T) -> (u32, u16, u16),
    mut roll: impl FnMut(u64) -> u64,
) -> Vec<T> {
    let mut ranks: Vec<u32> = items.iter().map(|item| key(item).0).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let mut drawn = Vec::with_capacity(items.len());
    for rank in ranks {
        // Those of weight 0 stand first, so that they have a small chance (RFC 2782).
        let mut groups: Vec<(u16, u16)> = Vec::new();
        for (_, weight, group) in items.iter().map(&key).filter(|k| k.0 == rank) {
            if !groups.iter().any(|(_, known)| *known == group) {
                groups.push((weight, group));
            }
        }
        groups.sort_by_key(|(weight, _)| *weight != 0);
        while !groups.is_empty() {
            let sum: u64 = groups.iter().map(|(weight, _)| u64::from(*weight)).sum();
            let lot = roll(sum);
            let mut running = 0;
            let chosen = groups.iter().position(|(weight, _)| {
                running += u64::from(*weight);
                running >= lot
            });
            let (_, group) = groups.remove(chosen.unwrap_or(0));
            let own = |item: &&T| {
                let (of, _, in_group) = key(item);
                (of, in_group) == (rank, group)
            };
            drawn.extend(items.iter().filter(own).copied());
        }
    }
    drawn
}

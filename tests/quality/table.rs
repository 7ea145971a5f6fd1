//! What came of it, for people and for machines.

use std::fmt::Write as _;

use crate::impairment::Pattern;
use crate::passage::Count;
use crate::script::Speaker;

/// A pattern of loss, its name in the result, and the MOS-LQO that the mean is to have at least.
pub(crate) const GOALS: [(Pattern, &str, f64); 4] = [
    (Pattern::Clean, "pesq_clean", 3.80),
    (Pattern::Random(5), "pesq_5", 3.60),
    (Pattern::Random(10), "pesq_10", 3.40),
    (Pattern::Bursts { percent: 10, length: 3 }, "pesq_burst", 3.30),
];

/// The way that a voice goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Loss towards the gateway.
    ToTelephone,
    /// Loss towards the user.
    ToUser,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::ToTelephone, Self::ToUser];

    fn name(self) -> &'static str {
        match self {
            Direction::ToTelephone => "overlay to PSTN",
            Direction::ToUser => "PSTN to overlay",
        }
    }
}

/// One speaker in one direction under one pattern.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) pattern: Pattern,
    pub(crate) speaker: Speaker,
    pub(crate) direction: Direction,
    /// What the network did.
    pub(crate) count: Count,
    /// Frames of the receiver that FEC brought back, and that concealment made up, where it tells.
    pub(crate) recovered: Option<u64>,
    pub(crate) concealed: Option<u64>,
    /// MOS-LQO of each sentence.
    pub(crate) values: Vec<f64>,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) cells: Vec<Cell>,
    /// MOS-LQO of sentences that went through A-law and nothing else.
    pub(crate) a_law: Vec<f64>,
}

impl Table {
    fn of(&self, pattern: Pattern) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.pattern == pattern)
    }

    /// The mean over all sentences under a pattern; every cell has as many.
    fn mean(&self, pattern: Pattern) -> f64 {
        mean(self.of(pattern).flat_map(|cell| cell.values.iter().copied()))
    }

    /// The table for people.
    pub(crate) fn rows(&self) -> String {
        let mut text = String::from(
            "loss                  speaker     language          direction        lost   recovered  concealed  MOS-LQO   least\n",
        );
        for (pattern, _, goal) in GOALS {
            for cell in self.of(pattern) {
                let number =
                    |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
                let least = cell.values.iter().copied().fold(f64::INFINITY, f64::min);
                let Speaker { name, language, .. } = cell.speaker;
                let _ = writeln!(
                    text,
                    "{pattern:<20}  {name:<10}  {language:<16}  {:<15}  {:>5.2}%  {:>9}  {:>9}  {:>7.2}  {least:>6.2}",
                    cell.direction.name(),
                    100.0 * cell.count.share(),
                    number(cell.recovered),
                    number(cell.concealed),
                    mean(cell.values.iter().copied()),
                );
            }
            let (mean, sentences) =
                (self.mean(pattern), self.of(pattern).map(|cell| cell.values.len()).sum::<usize>());
            let reached = if mean >= goal { "reached" } else { "MISSED" };
            let _ = writeln!(
                text,
                "{pattern}: mean {mean:.2} of {sentences} sentences, goal {goal:.2} {reached}\n"
            );
        }
        let alone = mean(self.a_law.iter().copied());
        let _ = writeln!(
            text,
            "A-law and back, and nothing else: mean {alone:.2} of {} sentences",
            self.a_law.len()
        );
        text
    }

    /// A line for each sentence: pattern, goal, speaker, direction, MOS-LQO, with tabs between.
    pub(crate) fn lines(&self) -> String {
        let mut text = String::new();
        for (pattern, _, goal) in GOALS {
            for cell in self.of(pattern) {
                for value in &cell.values {
                    let (language, direction) = (cell.speaker.language, cell.direction.name());
                    let _ = writeln!(text, "{pattern}\t{goal}\t{language}\t{direction}\t{value:.4}");
                }
            }
        }
        text
    }

    /// The line for machines.
    pub(crate) fn result(&self) -> String {
        let means = GOALS.map(|(pattern, name, _)| format!("{name}={:.2}", self.mean(pattern)));
        format!("RESULT quality {}", means.join(" "))
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::SPEAKERS;

    fn cell(pattern: Pattern, direction: Direction, values: &[f64]) -> Cell {
        let count = Count { packets: 200, lost: 20 };
        let (recovered, concealed, values) = (Some(12), None, values.to_vec());
        Cell { pattern, speaker: SPEAKERS[0], direction, count, recovered, concealed, values }
    }

    fn table() -> Table {
        let [clean, five, ten, bursts] = GOALS.map(|(pattern, ..)| pattern);
        let cells = vec![
            cell(clean, Direction::ToTelephone, &[4.0, 4.2]),
            cell(clean, Direction::ToUser, &[4.4, 4.6]),
            cell(five, Direction::ToUser, &[3.7]),
            cell(ten, Direction::ToUser, &[3.4]),
            cell(bursts, Direction::ToUser, &[3.0, 3.1]),
        ];
        Table { cells, a_law: vec![4.4, 4.5] }
    }

    #[test]
    fn the_result_has_the_means_of_all_sentences() {
        assert_eq!(
            table().result(),
            "RESULT quality pesq_clean=4.30 pesq_5=3.70 pesq_10=3.40 pesq_burst=3.05"
        );
    }

    #[test]
    fn rows_say_what_was_reached_and_what_was_not() {
        let rows = table().rows();
        assert!(rows.contains("no loss: mean 4.30 of 4 sentences, goal 3.80 reached"), "{rows}");
        assert!(rows.contains("10 % in bursts of 3: mean 3.05 of 2 sentences, goal 3.30 MISSED"), "{rows}");
        assert!(rows.contains("nothing else: mean 4.45 of 2 sentences"), "{rows}");
        let cell = rows.lines().find(|line| line.starts_with("10 % random ")).unwrap_or_default();
        for word in ["Allison", "American English", "PSTN to overlay", "10.00%", "12", "-", "3.40"] {
            assert!(cell.contains(word), "{word} in {cell}");
        }
    }

    #[test]
    fn each_sentence_has_its_line() {
        let lines = table().lines();
        assert_eq!(lines.lines().count(), 8);
        assert_eq!(lines.lines().next(), Some("no loss\t3.8\tAmerican English\toverlay to PSTN\t4.0000"));
    }
}

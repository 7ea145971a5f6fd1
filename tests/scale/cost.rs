//! What single operations cost on this machine, measured in the same run.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use p2p_edge::record::{Source, Store, StoreLimits};

use crate::random::Random;
use crate::world::{BASE, World, is_certified};

/// Microseconds of one processor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    /// A location record verified: the certificate of its owner and its signature.
    pub(crate) record: f64,
    /// A location record written and signed.
    pub(crate) sign: f64,
    /// The certificate chain of a supernode verified.
    pub(crate) chain: f64,
    /// A verified record put into a store.
    pub(crate) store: f64,
}

/// The time of one turn: that of the quickest batch, which nothing else has disturbed.
fn quickest(mut turn: impl FnMut() -> Result<()>) -> Result<f64> {
    const BATCHES: usize = 30;
    const TURNS: u32 = 20;
    let mut best = f64::INFINITY;
    for _ in 0..BATCHES {
        let begin = Instant::now();
        for _ in 0..TURNS {
            turn()?;
        }
        best = best.min(begin.elapsed().as_secs_f64() * 1e6 / f64::from(TURNS));
    }
    Ok(best)
}

impl Costs {
    /// Measures with the identities of a model.
    pub(crate) fn measure(world: &World) -> Result<Self> {
        let mut sequence = BASE * 1000;
        let value = world.sign(0, &[0, 1, 2], sequence, BASE)?;
        let chain = world.chain(&mut Random::new(1))?;
        let record = quickest(|| world.verify(0, black_box(value.clone()), BASE).map(drop))?;
        let sign = quickest(|| {
            sequence += 1;
            world.sign(0, &[0, 1, 2], sequence, BASE).map(|value| drop(black_box(value)))
        })?;
        let chain = quickest(|| {
            black_box(is_certified(&chain, &world.trust, &world.revocations));
            Ok(())
        })?;
        let verified = world.verify(0, value, BASE)?;
        let store = quickest(|| {
            let mut store = Store::new(StoreLimits::default());
            store.put_verified(black_box(verified.clone()), Source::Local, BASE)?;
            Ok(())
        })?;
        Ok(Self { record, sign, chain, store })
    }
}

//! How far a member's clock is off.
//!
//! Owns how often it is asked. Must not know what the offset is for.

use crate::clock;
use crate::limits::STEP_DEADLINE;
use crate::net::link::Link;
use dvm_api::peer::ToPeer;

/// The peer's clock less ours, by the exchange that was on its way for the shortest time.
///
/// # Errors
/// The peer does not answer, or not what was asked.
pub async fn clock_offset_ns(link: &Link) -> Result<i64, String> {
    let began_ns = clock::monotonic_ns();
    let mut best: Option<clock::Exchange> = None;
    for _ in 0..clock::EXCHANGES_MAX {
        let sent_ns = clock::monotonic_ns();
        let answer = link.ask(STEP_DEADLINE, |tag| ToPeer::AskClock { tag }).await.map_err(|error| error.to_string())?;
        let back_ns = clock::monotonic_ns();
        let ToPeer::Clock { received_ns, monotonic_ns, .. } = answer else {
            return Err("its answer makes no sense".to_owned());
        };
        let exchange = clock::Exchange::new([sent_ns, received_ns, monotonic_ns, back_ns]);
        let shorter = best.filter(|best| best.way_ns <= exchange.way_ns).unwrap_or(exchange);
        best = Some(shorter);
        if shorter.way_ns <= clock::WAY_NS_GOOD || back_ns - began_ns > clock::MEASURING_NS_MAX {
            break;
        }
    }
    Ok(best.map_or(0, |best| best.offset_ns))
}

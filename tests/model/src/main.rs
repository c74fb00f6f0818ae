//! probe
use protocol_model::*;
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let p = Protocol {
        family: if a[0]==1 { Family::ParentAndChild } else { Family::Strangers },
        grain: if a[1]==1 { Grain::Fine } else { Grain::Coarse },
        records: a[2] as u8, objects: a[3] as usize, workers: 2,
        faults: state::Faults { deaths: a[4] as u8, losses: a[5] as u8, expiries: a[6] as u8, asks: a[7] as u8 },
        mutation: None, forgets: true };
    let t = std::time::Instant::now();
    let o = check::check(p, 1);
    println!("{a:?} {o:#?} {:?}", t.elapsed());
}

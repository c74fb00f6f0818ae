//! The rules by which ECS adds and removes workers, as Application Auto Scaling applies them.
//!
//! Owns: when a rule wants how many workers, from one value a minute. Does not own: starting them.
//!
//! Both rules see what the workers write for CloudWatch each minute. A rule acts on three values in a row, since single ones are noise, and
//! rests after that.

use std::collections::VecDeque;

use super::requests::float;

/// Who adds workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Nobody.
    None,
    /// Target tracking on `backlog_per_task`: this many bytes for each worker.
    Backlog(f64),
    /// Steps on `oldest_age`, as `deploy/worker.yaml` has them on the age of Kinesis: half as many workers more above so many seconds, and
    /// as many again above half an hour more.
    Age(f64),
}

/// Values in a row that a rule needs to add workers, and to remove them.
const HIGH: usize = 3;
const LOW: usize = 15;
/// Minutes without another action after workers were added, and after some were removed.
const REST_OUT: usize = 5;
const REST_IN: usize = 15;

/// A rule at work.
#[derive(Debug)]
pub struct Autoscaler {
    rule: Rule,
    bounds: (usize, usize),
    values: VecDeque<f64>,
    minute: usize,
    rests_until: usize,
}

impl Autoscaler {
    /// A rule that keeps the number of workers within `bounds`.
    pub fn new(rule: Rule, bounds: (usize, usize)) -> Self {
        Autoscaler { rule, bounds, values: VecDeque::new(), minute: 0, rests_until: 0 }
    }

    /// The number of workers that the rule wants, a minute after the last call. `figures`: the backlog and the age of each worker.
    pub fn desired(&mut self, current: usize, figures: &[(f64, f64)]) -> usize {
        self.minute += 1;
        let value = match self.rule {
            Rule::None => return current,
            Rule::Backlog(_) => {
                figures.iter().map(|(backlog, _)| backlog).sum::<f64>() / float(figures.len().max(1) as u64)
            }
            Rule::Age(_) => figures.iter().map(|(_, age)| *age).fold(0.0, f64::max),
        };
        self.values.push_back(value);
        if self.values.len() > LOW {
            self.values.pop_front();
        }
        if self.minute < self.rests_until {
            return current;
        }
        let last = || self.values.iter().rev();
        let wanted = match self.rule {
            Rule::None => current,
            Rule::Backlog(target) => {
                let high = self.values.len() >= HIGH && last().take(HIGH).all(|value| *value > target);
                let low = self.values.len() >= LOW && last().all(|value| *value < 0.9 * target);
                // Backlogs of nothing would remove all workers but one at once: at most a tenth goes.
                let fewer = (float(current as u64) * (value / target).max(0.9)).floor();
                match (high, low) {
                    (true, _) => whole((float(current as u64) * value / target).ceil()),
                    (_, true) => whole(fewer),
                    _ => current,
                }
            }
            Rule::Age(limit) => {
                let high = self.values.len() >= HIGH && last().take(HIGH).all(|value| *value > limit);
                let more = if value > limit + 1800.0 { 2.0 } else { 1.5 };
                let low = self.values.len() >= LOW && last().all(|value| *value < 0.6 * limit);
                match (high, low) {
                    (true, _) => whole((float(current as u64) * more).ceil()).max(current + 1),
                    (_, true) => current.saturating_sub(1),
                    _ => current,
                }
            }
        };
        let wanted = wanted.clamp(self.bounds.0, self.bounds.1);
        if wanted != current {
            self.rests_until = self.minute + if wanted > current { REST_OUT } else { REST_IN };
            self.values.clear();
        }
        wanted
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of workers")]
fn whole(count: f64) -> usize {
    count.clamp(0.0, 1e6) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_tracking_adds_workers_in_proportion_and_rests() {
        let mut scaler = Autoscaler::new(Rule::Backlog(100.0), (2, 20));
        let high = [(250.0, 0.0), (350.0, 0.0)];
        assert_eq!([(); 3].map(|()| scaler.desired(2, &high)), [2, 2, 6]);
        assert_eq!([(); 4].map(|()| scaler.desired(6, &high)), [6; 4]);
        assert_eq!(scaler.desired(6, &high), 18);
        let mut low: Vec<usize> = (0..20).map(|_| scaler.desired(18, &[(0.0, 0.0)])).collect();
        low.dedup();
        assert_eq!(low, [18, 16, 18], "a tenth goes, and only after fifteen minutes");
    }

    #[test]
    fn steps_on_the_age_add_half_and_take_one_away() {
        let mut scaler = Autoscaler::new(Rule::Age(600.0), (1, 8));
        assert_eq!([(); 3].map(|()| scaler.desired(4, &[(0.0, 700.0)])), [4, 4, 6]);
        assert_eq!((0..8).map(|_| scaler.desired(6, &[(0.0, 3000.0)])).find(|count| *count != 6), Some(8));
        assert_eq!((0..40).map(|_| scaler.desired(8, &[(0.0, 200.0)])).find(|count| *count != 8), Some(7));
    }
}

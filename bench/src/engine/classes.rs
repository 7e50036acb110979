//! Where a decode step's time goes, by class of kernels: what each launch takes alone.
//!
//! The sum is more than a step takes when it is replayed and its launches overlap.

use anyhow::{Result, ensure};
use engine::TokenEngine;
use kernels::LaunchTime;
use serde::{Deserialize, Serialize};

use super::run::Bench;
use super::traffic::Traffic;

/// Steps of which each class's median is taken.
pub(super) const STEPS: u32 = 9;

/// What the kernels of a class take in a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ClassTime {
    pub(super) class: String,
    pub(super) launches: usize,
    pub(super) micros: f64,
    /// Of what the class has to move, where that is what it does.
    pub(super) gb_s: Option<f64>,
}

/// In the order in which they are shown.
const CLASSES: [&str; 6] = ["weights", "operands", "attention", "delta rule", "choice", "other"];

fn class_of(kernel: &str) -> &'static str {
    let begins = |names: &[&str]| names.iter().any(|name| kernel.starts_with(name));
    let is = |names: &[&str]| names.contains(&kernel);
    if is(&["linear_prepare", "rms_norm", "swiglu", "add_rows", "moe_route", "moe_add_shared"]) {
        "operands"
    } else if begins(&["linear_", "cublaslt"]) || is(&["moe_gate_up", "moe_down"]) {
        "weights"
    } else if begins(&["attention_", "rope_kv"]) {
        "attention"
    } else if begins(&["delta_", "conv_", "gated_norm"]) {
        "delta rule"
    } else if begins(&["sample_", "step_ahead"]) {
        "choice"
    } else {
        "other"
    }
}

impl Bench<'_> {
    /// The classes of a step in which `batch` sequences, `depth` tokens long at first, decode.
    pub(super) fn classes(
        &mut self,
        depth: u32,
        batch: u32,
        traffic: &Traffic,
    ) -> Result<Vec<ClassTime>> {
        // One step more begins ahead of the last one that is timed.
        self.begin_decoding(depth, batch, STEPS + 2)?;
        let mut steps = Vec::new();
        for _ in 0..STEPS {
            self.engine.time_next_step();
            self.engine.step()?;
            steps.push(self.engine.launch_times());
        }
        while !self.engine.is_idle() {
            self.engine.step()?;
        }
        ensure!(steps.iter().all(|step| !step.is_empty()), "this device takes no times of its own");
        let mut classes = summed(&steps);
        let context = depth + STEPS / 2;
        for ClassTime { class, micros, gb_s, .. } in &mut classes {
            let bytes = match class.as_str() {
                "weights" => traffic.weight_bytes(batch),
                "attention" => traffic.kv_bytes(context, batch),
                "delta rule" => traffic.state_bytes(batch),
                _ => continue,
            };
            *gb_s = Some(bytes / *micros / 1e3);
        }
        Ok(classes)
    }
}

/// The median of each class over steps.
fn summed(steps: &[Vec<LaunchTime>]) -> Vec<ClassTime> {
    let of = |class: &&str| {
        let mut micros = Vec::new();
        let mut launches = 0;
        for step in steps {
            let own = step.iter().filter(|launch| class_of(launch.name) == *class);
            launches = own.clone().count();
            micros.push(1e6 * own.map(|launch| launch.seconds).sum::<f64>());
        }
        micros.sort_unstable_by(f64::total_cmp);
        let micros = micros[micros.len() / 2];
        ClassTime { class: (*class).to_owned(), launches, micros, gb_s: None }
    };
    CLASSES.iter().map(of).filter(|class| class.launches > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_summed_by_class_and_the_median_step_counts() {
        let step = |factor: f64| {
            let launch = |name, micros: f64| LaunchTime { name, seconds: factor * micros / 1e6 };
            vec![
                launch("embed", 1.0),
                launch("linear_prepare", 2.0),
                launch("linear_one", 10.0),
                launch("attention_alone_128", 4.0),
                launch("linear_one", 30.0),
                launch("sample_pick", 3.0),
            ]
        };
        let got = summed(&[step(9.0), step(1.0), step(0.5)]);
        let got: Vec<_> =
            got.iter().map(|it| (it.class.as_str(), it.launches, it.micros.round())).collect();
        assert_eq!(
            got,
            [
                ("weights", 2, 40.0),
                ("operands", 1, 2.0),
                ("attention", 1, 4.0),
                ("choice", 1, 3.0),
                ("other", 1, 1.0)
            ]
        );
    }
}

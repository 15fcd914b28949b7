//! What is measured of a broker: one module for each scenario, all with the same client.

mod bench;
mod catchup;
mod fanout;
mod latency;
mod librdkafka;
mod produce;
mod small;
mod tail;

pub use bench::{Bench, Plan};
pub(crate) use bench::{PARTITIONS, RECORD_BYTES};
pub(crate) use fanout::produce_and_follow;

/// A scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Produce alone, as fast as it goes.
    Produce,
    /// A reader that follows a paced producer.
    Tail,
    /// Produce as fast as it goes while one, three, five readers follow.
    Fanout,
    /// Read all from the start.
    Catchup,
    /// Latency under offered loads.
    Latency,
    /// 60,000 small records a second.
    Small,
    /// Produce, then consume, through librdkafka.
    Librdkafka,
}

impl Scenario {
    /// All, in the order in which they run.
    pub const ALL: [Scenario; 7] = [
        Scenario::Produce,
        Scenario::Tail,
        Scenario::Fanout,
        Scenario::Catchup,
        Scenario::Latency,
        Scenario::Small,
        Scenario::Librdkafka,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Produce => "produce",
            Scenario::Tail => "tail",
            Scenario::Fanout => "fanout",
            Scenario::Catchup => "catchup",
            Scenario::Latency => "latency",
            Scenario::Small => "small",
            Scenario::Librdkafka => "librdkafka",
        }
    }

    /// The scenario of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Scenario, String> {
        let names: Vec<&str> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
        found.ok_or_else(|| format!("there is no scenario '{name}', but {}", names.join(", ")))
    }

    /// Runs all its cells on one broker. What fails is recorded as failed.
    pub fn run(self, bench: &mut Bench<'_>) {
        match self {
            Scenario::Produce => produce::run(bench),
            Scenario::Tail => tail::run(bench),
            Scenario::Fanout => fanout::run(bench),
            Scenario::Catchup => catchup::run(bench),
            Scenario::Latency => latency::run(bench),
            Scenario::Small => small::run(bench),
            Scenario::Librdkafka => librdkafka::run(bench),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_found_by_its_name() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::named(scenario.name()), Ok(scenario));
        }
        assert!(Scenario::named("nothing").is_err());
    }
}

//! Protections that a test can take out, to show that it would notice. Never in a release: a feature for tests alone.

/// Which protections are off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PlantedBugs {
    /// Groups bear no incarnation, and recovery asks for none.
    pub no_incarnation: bool,
    /// Recovery follows groups whose link to the one before does not match.
    pub no_chain: bool,
}

//! What is wrong with a configuration, in the words that its author reads.

use std::fmt;

use super::load::Origin;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The key to change; empty when the file itself cannot be read.
    pub key: String,
    /// Where the offending value was given.
    pub origin: Origin,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.is_empty(), &self.origin) {
            (true, origin) => write!(f, "{origin}: {}", self.text),
            (false, Origin::Default) => write!(f, "{}: {}", self.key, self.text),
            (false, origin) => write!(f, "{} ({origin}): {}", self.key, self.text),
        }
    }
}

/// Everything that is wrong, at least one thing; shown one a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

//! What the engine is told by the machine it runs on: variables, AWS's files, the wall clock. Tests bring their own.
#![expect(clippy::disallowed_methods, reason = "AWS's tools take their settings from variables and files")]

use std::{
    fmt,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Files of AWS's tools are small; what is larger is none.
const LARGEST_FILE: u64 = 1 << 20;

type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;
type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Variables, files and clock of this process, or of a test.
#[derive(Clone)]
pub(crate) struct Surroundings {
    variables: Variables,
    clock: Clock,
}

/// Variables hold secrets: none is shown.
impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surroundings")
    }
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn of_process() -> Surroundings {
        Surroundings { variables: Arc::new(|name| std::env::var(name).ok()), clock: Arc::new(SystemTime::now) }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn made_up(
        variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Surroundings {
        Surroundings { variables: Arc::new(variables), clock: Arc::new(clock) }
    }

    /// A variable; an empty one counts as not set, as with AWS's tools.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.variables)(name).filter(|value| !value.trim().is_empty())
    }

    /// Whether a variable says `true`.
    pub(crate) fn says_true(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Seconds since 1970.
    pub(crate) fn now_s(&self) -> i64 {
        let since = (self.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }

    /// The file that `variable` names, else `~/.aws/NAME`; `None` without a home.
    pub(crate) fn aws_file(&self, variable: &str, name: &str) -> Option<PathBuf> {
        let given = self.variable(variable).map(PathBuf::from);
        given.or_else(|| Some(PathBuf::from(self.variable("HOME")?).join(".aws").join(name)))
    }

    /// A file's text.
    ///
    /// # Errors
    /// The reason, without any of the content.
    pub(crate) fn read(&self, path: &Path) -> Result<String, String> {
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        file.take(LARGEST_FILE).read_to_string(&mut text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(text)
    }
}

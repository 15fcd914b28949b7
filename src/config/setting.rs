//! What the table says about one key.

/// What kind of value a setting takes, as DescribeConfigs names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Long,
    /// A number with a fraction.
    Double,
    /// Text.
    Text,
    /// Texts, separated by commas.
    List,
}

impl Kind {
    /// DescribeConfigs' `ConfigType` (KIP-569).
    pub const fn kafka_type(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::Text => 2,
            Kind::Int => 3,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
        }
    }

    /// What to write, for a message to the person who wrote something else.
    pub const fn expected(self) -> &'static str {
        match self {
            Kind::Boolean => "true or false",
            Kind::Int | Kind::Long => "a whole number",
            Kind::Double => "a number",
            Kind::Text => "a text in quotes",
            Kind::List => "a text, or a list of texts",
        }
    }
}

/// Another name of a setting, of lower precedence, in a larger unit.
#[derive(Clone, Copy, Debug)]
pub struct Synonym {
    /// The name, e.g. `log.retention.hours`.
    pub key: &'static str,
    /// How many of the setting's units one of this name's is. A value of -1 stays -1.
    pub factor: i64,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name: Kafka's where Kafka has it.
    pub key: &'static str,
    /// Its default, as text; for a computed one, in words or with `<...>` in it.
    pub default: &'static str,
    /// Whether the default is computed from other settings or the machine.
    pub computed: bool,
    /// What it takes.
    pub kind: Kind,
    /// Unit of its value (`ms`, `bytes`, `minutes`), or empty.
    pub unit: &'static str,
    /// Smallest number allowed.
    pub min: i64,
    /// Largest number allowed.
    pub max: i64,
    /// What it does.
    pub doc: &'static str,
    /// The topic setting that takes its default from this one, or empty.
    pub topic_key: &'static str,
    /// Further names, by falling precedence; the key itself comes before all of them.
    pub synonyms: &'static [Synonym],
}

impl Setting {
    /// A row with `key` and `default`; the table adds kind, bounds of the type, and documentation.
    pub(super) const fn of(key: &'static str, default: &'static str) -> Setting {
        Setting {
            key,
            default,
            computed: false,
            kind: Kind::Text,
            unit: "",
            min: i64::MIN,
            max: i64::MAX,
            doc: "",
            topic_key: "",
            synonyms: &[],
        }
    }

    pub(super) const fn computed(self) -> Setting {
        Setting { computed: true, ..self }
    }

    pub(super) const fn unit(self, unit: &'static str) -> Setting {
        Setting { unit, ..self }
    }

    pub(super) const fn range(self, min: i64, max: i64) -> Setting {
        Setting { min, max, ..self }
    }

    pub(super) const fn topic_key(self, topic_key: &'static str) -> Setting {
        Setting { topic_key, ..self }
    }

    pub(super) const fn synonyms(self, synonyms: &'static [Synonym]) -> Setting {
        Setting { synonyms, ..self }
    }

    /// Adds what the field's type and its documentation say; bounds given in the row stay.
    pub(super) const fn typed(self, kind: Kind, min: i64, max: i64, doc: &'static str) -> Setting {
        Setting {
            kind,
            min: if self.min == i64::MIN { min } else { self.min },
            max: if self.max == i64::MAX { max } else { self.max },
            doc,
            ..self
        }
    }
}

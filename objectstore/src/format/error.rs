//! Why bytes are not an object.

/// What is wrong with an object, or a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// The magic is missing: not an object of ours, or its end is cut off.
    #[error("no object footer: not a Thalweg object, or its end is missing")]
    Magic,
    /// Written by a later version.
    #[error("object format version {0} is not known")]
    Version(u16),
    /// A part fails its CRC-32C.
    #[error("the {0} fails its CRC-32C")]
    Crc(&'static str),
    /// A part is shorter than it says.
    #[error("the {0} ends too early")]
    Truncated(&'static str),
    /// A part says what cannot be.
    #[error("the object is damaged: {0}")]
    Invalid(&'static str),
}

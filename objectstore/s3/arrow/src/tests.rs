//! The engine before servers that are made up, and before real ones.

thalweg_objectstore_s3::behaves!(crate::Arrow::new);

#[cfg(feature = "s3-server-tests")]
mod servers {
    thalweg_objectstore_s3::serves!(crate::Arrow::new);
}

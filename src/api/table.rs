//! The keys that are served, sorted. Dispatch and the ApiVersions answer are derived from this table alone.

use super::{Api, k01_fetch, k18_api_versions};

/// Every key that is served, in ascending order.
pub static TABLE: &[Api] = &[k01_fetch::API, k18_api_versions::API];

/// How a key is served, if it is.
pub fn find(key: i16) -> Option<&'static Api> {
    TABLE.binary_search_by_key(&key, |api| api.key as i16).ok().map(|at| &TABLE[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_within_the_protocol() {
        assert!(TABLE.is_sorted_by(|a, b| (a.key as i16) < (b.key as i16)), "ascending, without duplicates");
        for api in TABLE {
            let known = api.key.valid_versions();
            assert!(known.min <= api.served_from && api.max <= known.max, "{:?}", api.key);
            assert!(api.min <= api.served_from && api.served_from <= api.max, "{:?}", api.key);
            assert_eq!(find(api.key as i16).map(|found| found.key), Some(api.key));
        }
        assert!(find(-1).is_none());
    }
}

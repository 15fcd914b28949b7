//! Listings, as requests of our own: the library has none of uploads, and its listing of objects fails as a whole when
//! somebody has put a key into the bucket that it would not write itself (`a//b`).

use std::collections::BTreeMap;

use hyper::{Method, Request};
use object_store::client::HttpRequestBody;
use thalweg_objectstore::{ObjectKey, StoreError};
use thalweg_objectstore_s3::{Extras, Markers, Page, Upload, Uploads};
use url::Url;
use xml::reader::{EventReader, XmlEvent};

use crate::service::{Call, Service};

/// The texts of elements, by their names.
type Fields = BTreeMap<String, String>;

/// A page of the objects whose key begins with `prefix`.
pub(crate) async fn objects(
    service: &Service,
    bucket_url: &str,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, StoreError> {
    let limit = limit.to_string();
    let mut query = vec![("list-type", "2"), ("max-keys", &limit), ("prefix", prefix)];
    query.extend(after.map(|key| ("start-after", key)));
    let (items, page) = ask(service, bucket_url, &query, "Contents").await?;
    let size = |item: &Fields| item.get("Size").and_then(|text| text.parse().ok()).unwrap_or(0);
    let object = |mut item: Fields| {
        let size_bytes = size(&item);
        (item.remove("Key").unwrap_or_default(), size_bytes)
    };
    Ok(Page { objects: items.into_iter().map(object).collect(), more: is_truncated(&page) })
}

/// A page of the uploads whose key begins with `prefix`.
pub(crate) async fn uploads(
    service: &Service,
    bucket_url: &str,
    prefix: &str,
    after: Option<&Markers>,
) -> Result<Uploads, StoreError> {
    let mut query = vec![("uploads", ""), ("prefix", prefix)];
    if let Some((key, id)) = after {
        query.push(("key-marker", key));
        query.extend(Some(("upload-id-marker", id.as_str())).filter(|(_, id)| !id.is_empty()));
    }
    let (items, mut page) = ask(service, bucket_url, &query, "Upload").await?;
    let upload = |mut item: Fields| {
        let mut field = |name: &str| item.remove(name).unwrap_or_default();
        Upload { key: field("Key"), id: field("UploadId"), initiated: field("Initiated") }
    };
    let more = is_truncated(&page);
    let id = page.remove("NextUploadIdMarker").unwrap_or_default();
    let next = page.remove("NextKeyMarker").filter(|_| more).map(|key| (key, id));
    Ok(Uploads { uploads: items.into_iter().map(upload).collect(), next })
}

fn is_truncated(page: &Fields) -> bool {
    page.get("IsTruncated").is_some_and(|text| text == "true")
}

/// Asks the bucket for a listing of `item` elements: their fields, and those beside them.
async fn ask(
    service: &Service,
    bucket_url: &str,
    query: &[(&str, &str)],
    item: &str,
) -> Result<(Vec<Fields>, Fields), StoreError> {
    let broken = |e: &dyn std::fmt::Display| StoreError::Refused(format!("a request that is none: {e}"));
    let mut url = Url::parse(bucket_url).map_err(|e| broken(&e))?;
    url.query_pairs_mut().extend_pairs(query);
    let request = Request::builder().method(Method::GET).uri(url.as_str()).body(HttpRequestBody::empty());
    let call = Call::new(&ObjectKey::new("listing").expect("a key"), Extras::default());
    let answer = service.send(&call, request.map_err(|e| broken(&e))?).await?;
    if let Some(refused) = call.seen().refused.take() {
        return Err(refused);
    }
    let body = answer.into_body().bytes().await.map_err(|e| StoreError::Retry(e.to_string()))?;
    read(&body, item).ok_or_else(|| StoreError::Retry("a listing that is none".to_owned()))
}

/// The fields of each `item`, and of the listing itself; `None` when it is no XML.
fn read(body: &[u8], item: &str) -> Option<(Vec<Fields>, Fields)> {
    let (mut items, mut current, mut page) = (Vec::new(), None::<Fields>, Fields::new());
    let mut inside = String::new();
    for event in EventReader::new(body) {
        match event.ok()? {
            XmlEvent::StartElement { name, .. } => {
                if name.local_name == item {
                    current = Some(Fields::new());
                }
                inside = name.local_name;
            }
            // The space between elements is text of none.
            XmlEvent::Characters(text) if !inside.is_empty() => {
                current.as_mut().unwrap_or(&mut page).insert(inside.clone(), text);
            }
            XmlEvent::EndElement { name } => {
                inside.clear();
                if name.local_name == item {
                    items.extend(current.take());
                }
            }
            _ => {}
        }
    }
    Some((items, page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_told_from_what_lies_beside_them() {
        let text = "<?xml version=\"1.0\"?><ListMultipartUploadsResult><IsTruncated>true</IsTruncated>\
            <NextKeyMarker>k&amp;</NextKeyMarker>\n<Upload><Initiator><ID>nobody</ID></Initiator><Key>a</Key>\
            <UploadId>u</UploadId></Upload><Upload><Key>b</Key></Upload></ListMultipartUploadsResult>";
        let (items, page) = read(text.as_bytes(), "Upload").expect("a listing");
        assert!(is_truncated(&page));
        assert_eq!(page.get("NextKeyMarker").map(String::as_str), Some("k&"));
        assert_eq!(page.get("Key"), None);
        let keys: Vec<&str> = items.iter().filter_map(|item| item.get("Key")).map(String::as_str).collect();
        assert_eq!(keys, ["a", "b"]);
        assert!(read(b"no XML", "Upload").is_none());
    }
}

//! Reading what services answer in XML: elements by name, whatever lies around them.

use xml::reader::{EventReader, XmlEvent};

/// The text of the first element of this name.
pub(crate) fn element_text(body: &[u8], wanted: &str) -> Option<String> {
    let mut inside = false;
    for event in EventReader::new(body) {
        match event.ok()? {
            XmlEvent::StartElement { name, .. } => inside = name.local_name == wanted,
            XmlEvent::Characters(text) if inside => return Some(text),
            XmlEvent::EndElement { .. } => inside = false,
            _ => {}
        }
    }
    None
}

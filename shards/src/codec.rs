//! Decompression of record batches, with a cap on what comes out.
//!
//! Pure and slow: long bodies belong on the cold queue. The codecs are libraries; ours is only Kafka's framing of snappy
//! (xerial blocks) and the cap, because 6 KB of zstd can unfold to 200 MB.

use std::io::Read;

use bytes::Bytes;

/// Why a body does not decompress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodecError {
    /// A codec id above 4.
    Unknown,
    /// The codec rejects the bytes.
    Corrupt,
    /// More than the cap would come out.
    TooLarge,
}

/// Magic and two versions before the blocks of Java's snappy streams.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\x00";
const XERIAL_HEAD_LEN: usize = 16;

/// The records section behind a batch's head, uncompressed; at most `cap_bytes` of it.
///
/// # Errors
/// See [`CodecError`].
pub fn decompress(codec: u8, body: &Bytes, cap_bytes: usize) -> Result<Bytes, CodecError> {
    match codec {
        0 => Ok(body.clone()),
        1 => capped(flate2::read::MultiGzDecoder::new(&body[..]), cap_bytes),
        2 => snappy(body, cap_bytes),
        3 => lz4(body, cap_bytes),
        4 => capped(zstd::stream::read::Decoder::new(&body[..]).map_err(|_| CodecError::Corrupt)?, cap_bytes),
        _ => Err(CodecError::Unknown),
    }
}

fn capped(reader: impl Read, cap_bytes: usize) -> Result<Bytes, CodecError> {
    let mut out = Vec::new();
    reader.take(cap_bytes as u64 + 1).read_to_end(&mut out).map_err(|_| CodecError::Corrupt)?;
    if out.len() > cap_bytes { Err(CodecError::TooLarge) } else { Ok(out.into()) }
}

fn lz4(body: &[u8], cap_bytes: usize) -> Result<Bytes, CodecError> {
    let mut decoder = lz4::Decoder::new(body).map_err(|_| CodecError::Corrupt)?;
    let out = capped(&mut decoder, cap_bytes)?;
    // A cut frame ends like a whole one; only the decoder's end tells them apart.
    decoder.finish().1.map_err(|_| CodecError::Corrupt)?;
    Ok(out)
}

fn snappy(body: &[u8], cap_bytes: usize) -> Result<Bytes, CodecError> {
    let mut out = Vec::new();
    if !body.starts_with(XERIAL_MAGIC) {
        unsnap(body, &mut out, cap_bytes)?;
        return Ok(out.into());
    }
    let mut rest = body.get(XERIAL_HEAD_LEN..).ok_or(CodecError::Corrupt)?;
    while !rest.is_empty() {
        let (len, tail) = rest.split_first_chunk::<4>().ok_or(CodecError::Corrupt)?;
        let len = u32::from_be_bytes(*len) as usize;
        let (block, tail) = tail.split_at_checked(len).ok_or(CodecError::Corrupt)?;
        unsnap(block, &mut out, cap_bytes)?;
        rest = tail;
    }
    Ok(out.into())
}

fn unsnap(block: &[u8], out: &mut Vec<u8>, cap_bytes: usize) -> Result<(), CodecError> {
    let len = snap::raw::decompress_len(block).map_err(|_| CodecError::Corrupt)?;
    if out.len().saturating_add(len) > cap_bytes {
        return Err(CodecError::TooLarge);
    }
    let from = out.len();
    out.resize(from + len, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[from..]).map_err(|_| CodecError::Corrupt)?;
    if written == len { Ok(()) } else { Err(CodecError::Corrupt) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn compressed(codec: u8, text: &[u8]) -> Bytes {
        let mut out = Vec::new();
        match codec {
            1 => {
                let mut w = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
                w.write_all(text).expect("gzip");
                w.finish().expect("gzip");
            }
            2 => {
                out.extend_from_slice(b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01");
                for block in text.chunks(1000) {
                    let block = snap::raw::Encoder::new().compress_vec(block).expect("snappy");
                    out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                    out.extend_from_slice(&block);
                }
            }
            3 => {
                let mut w = lz4::EncoderBuilder::new().build(&mut out).expect("lz4");
                w.write_all(text).expect("lz4");
                w.finish().1.expect("lz4");
            }
            4 => out = zstd::stream::encode_all(text, 1).expect("zstd"),
            _ => out.extend_from_slice(text),
        }
        out.into()
    }

    #[test]
    fn every_codec_comes_back_and_none_exceeds_the_cap() {
        let text = b"the line of fastest flow along the bed of a river ".repeat(200);
        for codec in 0..=4 {
            let body = compressed(codec, &text);
            assert_eq!(decompress(codec, &body, text.len()).as_deref(), Ok(&text[..]), "codec {codec}");
            if codec > 0 {
                assert_eq!(decompress(codec, &body, text.len() - 1), Err(CodecError::TooLarge), "codec {codec}");
                let cut = body.slice(..body.len() / 2);
                assert!(decompress(codec, &cut, text.len()).is_err(), "codec {codec} cut");
            }
        }
        assert_eq!(decompress(5, &Bytes::new(), 10), Err(CodecError::Unknown));
    }

    #[test]
    fn raw_snappy_without_frames_is_read_too() {
        let raw = snap::raw::Encoder::new().compress_vec(b"raw").expect("snappy");
        assert_eq!(decompress(2, &raw.into(), 10).as_deref(), Ok(&b"raw"[..]));
    }
}

//! Compression of record batches, and decompression with a cap on what comes out.
//!
//! Pure and slow: long bodies belong on the cold queue or a thread of their own. The codecs are libraries; ours is only
//! Kafka's framing of snappy (xerial blocks) and the cap, because 6 KB of zstd can unfold to 200 MB.

use std::io::{Read, Write};

use bytes::Bytes;

/// How a topic's batches are stored (`compression.type` and the level of its codec, KIP-390).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// As they are.
    Uncompressed,
    /// Levels 1 to 9; -1 is the library's default.
    Gzip(i32),
    /// Has no levels.
    Snappy,
    /// Levels 1 to 17. As in Kafka 9, the default, is the fast compressor; the others are those of LZ4 HC.
    Lz4(i32),
    /// Levels -131,072 to 22.
    Zstd(i32),
}

impl Compression {
    /// Kafka's id of the codec.
    pub fn codec(self) -> u8 {
        match self {
            Compression::Uncompressed => 0,
            Compression::Gzip(_) => 1,
            Compression::Snappy => 2,
            Compression::Lz4(_) => 3,
            Compression::Zstd(_) => 4,
        }
    }
}

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
/// Version of the stream, and the oldest that can read it.
const XERIAL_VERSIONS: &[u8; 8] = &[0, 0, 0, 1, 0, 0, 0, 1];
/// Block size of Java's snappy streams.
const XERIAL_BLOCK_LEN: usize = 32 << 10;

/// `section` as a batch's body.
///
/// # Panics
/// Never for the levels that topic settings allow: the codecs write to memory.
pub fn compress(to: Compression, section: &Bytes) -> Bytes {
    let written = match to {
        Compression::Uncompressed => return section.clone(),
        Compression::Gzip(level) => gzip(level, section),
        Compression::Snappy => Ok(xerial(section)),
        Compression::Lz4(level) => lz4_frame(level, section),
        Compression::Zstd(level) => zstd::bulk::compress(&section[..], level),
    };
    Bytes::from(written.expect("a codec that writes to memory does not fail"))
}

fn gzip(level: i32, section: &[u8]) -> std::io::Result<Vec<u8>> {
    let level = u32::try_from(level).map_or(flate2::Compression::default(), flate2::Compression::new);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(section)?;
    encoder.finish()
}

/// Kafka's default level, by which it means the fast compressor.
const LZ4_FAST_LEVEL: i32 = 9;

/// Java reads no frames whose blocks depend on each other; no client writes block checksums.
fn lz4_frame(level: i32, section: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = lz4::EncoderBuilder::new()
        .block_size(lz4::BlockSize::Max64KB)
        .block_mode(lz4::BlockMode::Independent)
        .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
        .checksum(lz4::ContentChecksum::NoChecksum)
        .level(if level == LZ4_FAST_LEVEL { 0 } else { level.unsigned_abs() })
        .build(Vec::new())?;
    encoder.write_all(section)?;
    let (written, ended) = encoder.finish();
    ended.map(|()| written)
}

fn xerial(section: &[u8]) -> Vec<u8> {
    let mut out = [&XERIAL_MAGIC[..], XERIAL_VERSIONS].concat();
    for block in section.chunks(XERIAL_BLOCK_LEN) {
        let block = snap::raw::Encoder::new().compress_vec(block).expect("a block is far below snappy's limit");
        out.extend_from_slice(&(block.len() as u32).to_be_bytes());
        out.extend_from_slice(&block);
    }
    out
}

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

/// What the first read of a body may take.
const FIRST_ROOM_BYTES: usize = 16 << 10;

fn capped(reader: impl Read, cap_bytes: usize) -> Result<Bytes, CodecError> {
    read_capped(reader, cap_bytes).map(Bytes::from)
}

/// Doubles its room up to the cap and never above it: a bomb that reaches the cap is not copied into twice the room to see
/// that it goes on.
fn read_capped(mut reader: impl Read, cap_bytes: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    while out.len() < cap_bytes {
        let wanted = (2 * out.len()).clamp(FIRST_ROOM_BYTES.min(cap_bytes), cap_bytes) - out.len();
        out.reserve_exact(wanted);
        let read = reader.by_ref().take(wanted as u64).read_to_end(&mut out).map_err(|_| CodecError::Corrupt)?;
        if read < wanted {
            return Ok(out);
        }
    }
    match reader.read(&mut [0]) {
        Ok(0) => Ok(out),
        Ok(_) => Err(CodecError::TooLarge),
        Err(_) => Err(CodecError::Corrupt),
    }
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
    use super::*;

    const ALL: [Compression; 5] = [
        Compression::Uncompressed,
        Compression::Gzip(-1),
        Compression::Snappy,
        Compression::Lz4(9),
        Compression::Zstd(3),
    ];

    #[test]
    fn what_is_read_takes_no_more_room_than_the_cap() {
        for len in [0, 1, FIRST_ROOM_BYTES - 1, FIRST_ROOM_BYTES, FIRST_ROOM_BYTES + 1, 99_999, 100_000] {
            let out = read_capped(std::io::repeat(7).take(len as u64), 100_000).expect("within the cap");
            assert_eq!(out.len(), len);
            assert!(out.capacity() <= 100_000, "{} bytes of room for {len}", out.capacity());
        }
        assert_eq!(read_capped(std::io::repeat(7), 100_000), Err(CodecError::TooLarge));
        assert_eq!(read_capped(std::io::repeat(7), 0), Err(CodecError::TooLarge));
    }

    #[test]
    fn every_codec_comes_back_and_none_exceeds_the_cap() {
        let text = Bytes::from(b"the line of fastest flow along the bed of a river ".repeat(2000));
        for to in ALL {
            let (codec, body) = (to.codec(), compress(to, &text));
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
    fn lz4_frames_look_like_kafkas() {
        let frame = compress(Compression::Lz4(9), &Bytes::from_static(b"a frame"));
        assert_eq!(
            frame[..6],
            [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40],
            "version 1, independent blocks of 64 KiB, no checksums"
        );
    }

    #[test]
    fn the_ends_of_every_level_work() {
        let text = Bytes::from(b"level ".repeat(100));
        let levels = [Compression::Gzip(1), Compression::Gzip(9), Compression::Lz4(1), Compression::Lz4(17)];
        for to in levels.into_iter().chain([Compression::Zstd(-131_072), Compression::Zstd(22)]) {
            assert_eq!(decompress(to.codec(), &compress(to, &text), text.len()), Ok(text.clone()), "{to:?}");
        }
        let empty = Bytes::new();
        assert!(ALL.iter().all(|to| decompress(to.codec(), &compress(*to, &empty), 0) == Ok(empty.clone())));
    }

    #[test]
    fn raw_snappy_without_frames_is_read_too() {
        let raw = snap::raw::Encoder::new().compress_vec(b"raw").expect("snappy");
        assert_eq!(decompress(2, &raw.into(), 10).as_deref(), Ok(&b"raw"[..]));
    }
}

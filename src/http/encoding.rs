//! Content codings (RFC 9110 section 8.4): none is asked for, and some gateways apply one all the same.

use std::io::Read;

use zeroize::Zeroizing;

/// Why a body cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EncodingError {
    /// Its decoded form is longer than the limit.
    TooLong,
    Unknown(String),
    /// It breaks off or is damaged; what could be decoded may hold the next refresh token.
    Damaged(Zeroizing<Vec<u8>>),
}

/// The body without the codings of a Content-Encoding header, the last of which was applied last.
pub(super) fn decode(
    body: Zeroizing<Vec<u8>>,
    codings: &str,
    limit: usize,
) -> Result<Zeroizing<Vec<u8>>, EncodingError> {
    codings.rsplit(',').map(|coding| coding.trim().to_ascii_lowercase()).try_fold(body, |body, coding| {
        let bytes = &body[..];
        // RFC 9110 means the zlib format by deflate; some servers send it bare.
        let zlib = matches!(bytes, [first, second, ..]
            if first & 0x0f == 8 && (u16::from(*first) * 256 + u16::from(*second)) % 31 == 0);
        let mut reader: Box<dyn Read + '_> = match coding.as_str() {
            "" | "identity" => return Ok(body),
            "gzip" | "x-gzip" => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
            "deflate" if zlib => Box::new(flate2::read::ZlibDecoder::new(bytes)),
            "deflate" => Box::new(flate2::read::DeflateDecoder::new(bytes)),
            "br" => Box::new(brotli_decompressor::Decompressor::new(bytes, 4096)),
            _ => return Err(EncodingError::Unknown(coding)),
        };
        read_within(&mut *reader, limit)
    })
}

fn read_within(reader: &mut dyn Read, limit: usize) -> Result<Zeroizing<Vec<u8>>, EncodingError> {
    let mut decoded = Zeroizing::new(Vec::new());
    let mut chunk = Zeroizing::new([0; 4096]);
    loop {
        match reader.read(&mut chunk[..]) {
            Ok(0) => return Ok(decoded),
            Ok(length) if decoded.len() + length > limit => return Err(EncodingError::TooLong),
            Ok(length) => decoded.extend_from_slice(&chunk[..length]),
            Err(_) => return Err(EncodingError::Damaged(decoded)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use crate::http::encoding::*;

    const TEXT: &[u8] = b"{\"refresh_token\":\"r2\"}";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(body: Vec<u8>, coding: &str) -> Result<Vec<u8>, EncodingError> {
        decode(body.into(), coding, 1000).map(|body| body.to_vec())
    }

    #[test]
    fn every_coding_is_decoded() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(TEXT).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::best());
        raw.write_all(TEXT).unwrap();
        // One uncompressed meta-block, RFC 7932 section 9.2.
        let length = TEXT.len() as u8 - 1;
        let brotli = [&[length << 4, length >> 4, 0x10][..], TEXT, b"\x03"].concat();
        for (body, coding) in [
            (TEXT.to_vec(), "identity"),
            (gzip(TEXT), "gzip"),
            (gzip(TEXT), "X-Gzip, identity"),
            (gzip(&gzip(TEXT)), "gzip, gzip"),
            (zlib.finish().unwrap(), "deflate"),
            (raw.finish().unwrap(), "deflate"),
            (brotli, "br"),
        ] {
            assert_eq!(decoded(body, coding).as_deref(), Ok(TEXT), "{coding}");
        }
    }

    #[test]
    fn a_bomb_is_refused_and_a_broken_body_keeps_its_beginning() {
        assert_eq!(decoded(gzip(&vec![b'x'; 100_000]), "gzip"), Err(EncodingError::TooLong));
        assert_eq!(decoded(TEXT.to_vec(), "zstd"), Err(EncodingError::Unknown("zstd".into())));
        let whole = gzip(TEXT);
        let Err(EncodingError::Damaged(part)) = decoded(whole[..whole.len() - 4].to_vec(), "gzip") else {
            panic!("not damaged");
        };
        assert_eq!(&part[..], TEXT);
    }
}

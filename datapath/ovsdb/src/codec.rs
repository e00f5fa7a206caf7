//! JSON texts out of a stream of bytes. RFC 7047, section 4, frames nothing: a message ends where its outermost brace
//! closes, wherever the reads happen to be cut.

use bytes::{Buf, BufMut, BytesMut};
use serde_json::Value;
use tokio_util::codec::{Decoder, Encoder};

/// The longest message that is taken, 64 MiB: the first answer for a database of a hundred thousand ports.
const LONGEST: usize = 64 << 20;

/// Why a stream is no sequence of JSON objects.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("a message begins with {0:?}, not with a brace")]
    NoObject(char),
    #[error("a message is longer than {LONGEST} bytes")]
    TooLong,
    #[error("a message is not JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("the stream ended in the middle of a message")]
    CutOff,
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}

/// Takes messages out of a stream and puts them in.
#[derive(Debug, Default)]
pub(crate) struct JsonCodec {
    /// How much of the buffer was looked at already.
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl JsonCodec {
    /// Where the outermost object ends, if it does in these bytes. Each byte is looked at once, however they arrive.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate().skip(self.scanned) {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                // Whether the brackets match is serde_json's to say.
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        self.scanned = bytes.len();
        None
    }
}

impl Decoder for JsonCodec {
    type Item = Value;
    type Error = CodecError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Value>, CodecError> {
        if self.scanned == 0 {
            let space = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            buffer.advance(space);
            match buffer.first() {
                None => return Ok(None),
                Some(b'{') => {}
                Some(byte) => return Err(CodecError::NoObject(char::from(*byte))),
            }
        }
        let Some(end) = self.end(buffer) else {
            return if buffer.len() > LONGEST { Err(CodecError::TooLong) } else { Ok(None) };
        };
        *self = Self::default();
        let text = buffer.split_to(end);
        serde_json::from_slice(&text).map(Some).map_err(CodecError::NotJson)
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Value>, CodecError> {
        match self.decode(buffer)? {
            None if !buffer.is_empty() => Err(CodecError::CutOff),
            item => Ok(item),
        }
    }
}

impl Encoder<&Value> for JsonCodec {
    type Error = CodecError;

    fn encode(&mut self, message: &Value, buffer: &mut BytesMut) -> Result<(), CodecError> {
        serde_json::to_writer(buffer.writer(), message).map_err(|error| CodecError::Io(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn decode_in_pieces(bytes: &[u8], piece: usize) -> Result<Vec<Value>, CodecError> {
        let (mut codec, mut buffer, mut found) = (JsonCodec::default(), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            buffer.extend_from_slice(piece);
            while let Some(value) = codec.decode(&mut buffer)? {
                found.push(value);
            }
        }
        while let Some(value) = codec.decode_eof(&mut buffer)? {
            found.push(value);
        }
        Ok(found)
    }

    #[test]
    fn messages_are_found_however_the_stream_is_cut() {
        let messages = [
            json!({"id": 1, "result": [{}], "error": null}),
            json!({"method": "echo", "params": ["}{\\\"]["], "id": "echo"}),
            json!({}),
        ];
        let bytes: Vec<u8> =
            messages.iter().flat_map(|message| format!("{message}\n ").into_bytes()).collect();
        for piece in 1..=bytes.len() {
            assert_eq!(decode_in_pieces(&bytes, piece).unwrap(), messages, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_object_is_an_error_at_once() {
        for (bytes, why) in [
            (&b"[]"[..], "begins with '['"),
            (b"HTTP/1.1 400", "begins with 'H'"),
            (b"{\"a\": ]}", "is not JSON"),
            (b"{\"a\": {}", "in the middle"),
            (b"}", "begins with '}'"),
        ] {
            let error = decode_in_pieces(bytes, 3).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let deep: Vec<u8> =
            std::iter::repeat_n(&b"{\"a\":"[..], 100_000).flatten().copied().chain(*b"}").collect();
        assert!(decode_in_pieces(&deep, 4096).is_err(), "nesting has its bound");
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes: Vec<u8>, piece in 1usize..64) {
            let _ = decode_in_pieces(&bytes, piece);
        }
    }
}

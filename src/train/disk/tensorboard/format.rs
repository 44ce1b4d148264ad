//! The form of an event file: records of TensorFlow, each an `Event` in protocol buffers.
//!
//! A record is its length as a little-endian u64, the masked CRC-32C of those eight bytes, the bytes, and their masked
//! CRC-32C. Messages have the fields that are written here, under their numbers in `tensorflow/core/util/event.proto` and
//! `tensorflow/core/framework/summary.proto`.

use prost::Message;

/// What the first event of a file says.
pub(super) const VERSION: &str = "brain.Event:2";

#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    #[prost(int64, tag = "2")]
    pub step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionLog {
    /// 1: what was of this step and later is of no account any more.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// [`SessionLog::status`] of a start.
pub(super) const START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
    #[prost(message, optional, tag = "8")]
    pub tensor: Option<Tensor>,
    #[prost(message, optional, tag = "9")]
    pub metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metadata {
    #[prost(message, optional, tag = "1")]
    pub plugin_data: Option<PluginData>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PluginData {
    #[prost(string, tag = "1")]
    pub plugin_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int32, tag = "1")]
    pub dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub string_val: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "2")]
    pub dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dim {
    #[prost(int64, tag = "1")]
    pub size: i64,
}

/// `DT_STRING`.
const STRING: i32 = 7;

impl Value {
    pub(super) fn scalar(tag: String, value: f64) -> Self {
        Self { tag, simple_value: Some(value as f32), tensor: None, metadata: None }
    }

    pub(super) fn text(tag: String, text: String) -> Self {
        let shape = Some(Shape { dim: vec![Dim { size: 1 }] });
        let tensor = Some(Tensor { dtype: STRING, shape, string_val: vec![text.into_bytes()] });
        let metadata = Some(Metadata { plugin_data: Some(PluginData { plugin_name: "text".to_owned() }) });
        Self { tag, simple_value: None, tensor, metadata }
    }
}

/// An event as a record.
pub(super) fn record(event: &Event) -> Vec<u8> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), &data, &masked(&data)].concat()
}

/// CRC-32C, turned and shifted so that the sum of what holds sums is no special case.
fn masked(data: &[u8]) -> [u8; 4] {
    let sum = crc32c::crc32c(data);
    sum.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_that_tensorboard_writes() {
        // EventFileWriter of tensorboard 2.20 for Event(wall_time=1.5, file_version="brain.Event:2").
        let event = Event { wall_time: 1.5, step: 0, what: Some(What::FileVersion(VERSION.to_owned())) };
        let bytes = record(&event);
        assert_eq!(bytes[..8], 24_u64.to_le_bytes());
        assert_eq!(bytes[8..12], masked(&bytes[..8]));
        assert_eq!(bytes[12..36], *b"\x09\0\0\0\0\0\0\xf8\x3f\x1a\x0dbrain.Event:2");
        assert_eq!(bytes[36..], masked(&bytes[12..36]));
        // The check value of CRC-32C, masked by hand.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked(b"123456789"), (0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8)).to_le_bytes());
    }
}

//! The event file of a run says what its metrics say, once, however often the run was stopped.

use crate::program::Folder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// A field of a message in protocol buffers.
#[derive(Debug, Clone, PartialEq)]
enum Field {
    Whole(u64),
    Bits64(u64),
    Bits32(u32),
    Bytes(Vec<u8>),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

/// The fields of a message by number.
fn message(mut bytes: &[u8]) -> BTreeMap<u64, Vec<Field>> {
    let mut fields: BTreeMap<u64, Vec<Field>> = BTreeMap::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Whole(varint(&mut bytes)),
            1 => Field::Bits64(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, length).to_vec())
            }
            5 => Field::Bits32(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap())),
            other => panic!("wire type {other}"),
        };
        fields.entry(key >> 3).or_default().push(field);
    }
    fields
}

fn bytes(field: &Field) -> &[u8] {
    if let Field::Bytes(bytes) = field { bytes } else { panic!("{field:?}") }
}

/// CRC-32C a bit at a time, masked as TensorFlow does it.
fn masked(data: &[u8]) -> u32 {
    let step = |sum: u32, _| (sum >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(sum & 1));
    let sum = !data.iter().fold(!0_u32, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step));
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// What an event file holds.
#[derive(Default)]
struct Events {
    /// Step and value, by tag, in the order of the file.
    scalars: BTreeMap<String, Vec<(u64, f32)>>,
    texts: BTreeMap<String, Vec<(u64, String)>>,
    times: Vec<f64>,
    starts: Vec<u64>,
}

fn read(mut file: &[u8]) -> Events {
    let mut events = Events::default();
    while !file.is_empty() {
        let length = take(&mut file, 8);
        let sum = |file: &mut &[u8]| u32::from_le_bytes(take(file, 4).try_into().unwrap());
        assert_eq!(sum(&mut file), masked(length));
        let data = take(&mut file, u64::from_le_bytes(length.try_into().unwrap()) as usize);
        assert_eq!(sum(&mut file), masked(data));
        let event = message(data);
        let Field::Bits64(time) = event[&1][0] else { panic!() };
        events.times.push(f64::from_bits(time));
        let step = event.get(&2).map_or(0, |step| if let Field::Whole(step) = step[0] { step } else { panic!() });
        if let Some(log) = event.get(&7) {
            assert_eq!(message(bytes(&log[0]))[&1], [Field::Whole(1)]);
            events.starts.push(step);
        }
        let Some(summary) = event.get(&5) else { continue };
        for value in message(bytes(&summary[0])).remove(&1).unwrap_or_default() {
            let value = message(bytes(&value));
            let tag = String::from_utf8(bytes(&value[&1][0]).to_vec()).unwrap();
            match value.get(&2).map(|value| &value[0]) {
                Some(Field::Bits32(word)) => {
                    events.scalars.entry(tag).or_default().push((step, f32::from_bits(*word)));
                }
                _ => {
                    let text = message(bytes(&value[&8][0]));
                    let text = String::from_utf8(bytes(&text[&8][0]).to_vec()).unwrap();
                    events.texts.entry(tag).or_default().push((step, text));
                }
            }
        }
    }
    events
}

/// The one event file of a run that holds anything: the one before it is empty.
fn events(folder: &Folder, run: &str) -> Events {
    let files = fs::read_dir(folder.path(&format!("{run}/tensorboard"))).unwrap().map(|file| file.unwrap().path());
    let own = files.filter(|path| path.to_string_lossy().ends_with(".tokenformer"));
    let bytes: Vec<Vec<u8>> = own.map(|path| fs::read(path).unwrap()).collect();
    let full: Vec<&Vec<u8>> = bytes.iter().filter(|bytes| !bytes.is_empty()).collect();
    assert!(full.len() == 1 && bytes.len() <= 2, "{} of {} files", full.len(), bytes.len());
    read(full[0])
}

/// Every number of the metrics is there, and none is twice.
fn assert_same(folder: &Folder, run: &str) -> Events {
    let events = events(folder, run);
    let text = folder.text(&format!("{run}/metrics.jsonl"));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (kind, names) in
        [("train", &["loss", "lr", "grad_norm", "tokens"][..]), ("eval", &["val_loss", "bits_per_byte"][..])]
    {
        for name in names {
            let of_kind = lines.iter().filter(|line| line["kind"] == kind);
            let wanted: Vec<(u64, f32)> =
                of_kind.map(|line| (line["step"].as_u64().unwrap(), line[*name].as_f64().unwrap() as f32)).collect();
            assert!(!wanted.is_empty());
            assert_eq!(events.scalars[&format!("{kind}/{name}")], wanted, "{kind}/{name}");
        }
    }
    assert_eq!(events.starts, [0], "what a TensorBoard has read before is forgotten");
    assert!(events.times.windows(2).all(|pair| pair[0] <= pair[1] + 1e-3), "{:?}", events.times);
    events
}

#[test]
fn events_say_what_metrics_say_also_after_a_resume() {
    let folder = Folder::new();
    let grow = "--set train.keep_best=false --set growth=[{at_step=15,ffn_slot_num=24}]";
    folder.train(&format!("--out r --tensorboard --steps 20 {grow}")).ok();
    let whole = assert_same(&folder, "r");
    assert_eq!(whole.scalars["growth/parameters"].len(), 1);
    assert_eq!(whole.scalars["growth/max_logit_change"][0].0, 15);
    assert!(whole.texts["growth"][0].1.contains("grown at step 15"), "{:?}", whole.texts);
    assert_eq!(whole.texts["sample"][0].0, 20);
    assert!(whole.scalars["train/tokens_per_second"].iter().all(|(_, speed)| *speed > 0.0));
    // The flag is a setting of the run: it goes on with it.
    folder.write("r/tensorboard/events.out.tfevents.1.host", "somebody else's");
    folder.run("train --resume r --steps 25 --tune off").ok();
    assert_eq!(folder.text("r/tensorboard/events.out.tfevents.1.host"), "somebody else's");
    fs::remove_file(folder.path("r/tensorboard/events.out.tfevents.1.host")).unwrap();
    assert_same(&folder, "r");
    // From before the end, where lines are dropped; and of a run that had none.
    for step in [20, 25] {
        fs::remove_file(folder.path(&format!("r/checkpoints/step-{step:08}.safetensors"))).unwrap();
    }
    fs::remove_dir_all(folder.path("r/tensorboard")).unwrap();
    folder.run("train --resume r --steps 18 --tune off").ok();
    let again = assert_same(&folder, "r");
    assert_eq!(again.scalars["train/loss"].last().unwrap().0, 18);
}

#[test]
fn a_run_does_not_end_because_events_cannot_be_written() {
    let folder = Folder::new();
    fs::create_dir(folder.path("r")).unwrap();
    folder.write("r/tensorboard", "a file in the way");
    let ran = folder.train("--out r --tensorboard --steps 3").ok();
    assert_eq!(ran.stderr.matches("TensorBoard gets no more of this run").count(), 1, "{}", ran.stderr);
    assert_eq!(folder.text("r/tensorboard"), "a file in the way");
    // A run without it leaves none of an older one.
    folder.train("--out s --tensorboard --steps 3").ok();
    folder.train("--out s --overwrite --steps 3").ok();
    assert_eq!(fs::read_dir(folder.path("s/tensorboard")).unwrap().count(), 0);
}

//! `tokenformer bench` as a program that reads its output meets it: clean standard output, every field there, and
//! exit codes that can be relied on. Measures for fractions of a second: no figure here says anything about speed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A fresh folder for one test.
fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench").join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn bench(dir: &Path, args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenformer"));
    command.env("TOKENFORMER_CACHE_DIR", dir.join("cache")).env("XDG_RUNTIME_DIR", dir);
    command.current_dir(dir).arg("bench").args(args.split(' ')).stdin(Stdio::null());
    command.output().unwrap()
}

#[track_caller]
fn succeed(dir: &Path, args: &str) -> String {
    let output = bench(dir, args);
    assert_eq!(output.status.code(), Some(0), "{args}:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fail(dir: &Path, args: &str, code: i32, words: &[&str]) {
    let output = bench(dir, args);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args}:\n{text}");
    for word in words {
        assert!(text.contains(word), "{args}: no \"{word}\" in:\n{text}");
    }
}

const FIELDS: [&str; 16] = [
    "op",
    "case",
    "pass",
    "layout",
    "m",
    "n",
    "k",
    "dtype",
    "candidate",
    "gflops_median",
    "gflops_best",
    "samples_ms",
    "median_ms",
    "best_ms",
    "spread_percent",
    "clock",
];

#[track_caller]
fn assert_record(record: &Value) {
    for field in FIELDS {
        assert!(record.get(field).is_some(), "no {field} in {record}");
    }
    assert!(["timestamps", "wall"].contains(&record["clock"].as_str().unwrap()));
    assert!(!record["samples_ms"].as_array().unwrap().is_empty());
    assert!(record["median_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn products_are_one_json_object_a_line() {
    let text = succeed(&folder("jsonl"), "matmul --sizes 64 --format jsonl --seconds 0.05");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(records.len() >= 3 && records.len().is_multiple_of(3), "three layouts: {}", records.len());
    for record in &records {
        assert_record(record);
        assert_eq!(
            (record["op"].as_str(), record["m"].as_u64(), record["k"].as_u64()),
            (Some("matmul"), Some(64), Some(64))
        );
        assert!(record["gflops_median"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn the_roofline_is_one_json_report() {
    let text = succeed(&folder("roofline"), "roofline --format json --seconds 0.05");
    let report: Value = serde_json::from_str(&text).unwrap();
    for field in ["schema", "version", "date", "command", "adapter", "host", "drifts", "records"] {
        assert!(report.get(field).is_some(), "no {field}");
    }
    for field in ["name", "backend", "driver", "driver_info", "device_type", "vendor_id", "device_id", "features"] {
        assert!(report["adapter"].get(field).is_some(), "no {field}");
    }
    assert!(report["host"]["cores"].as_u64().unwrap() > 0);
    let records = report["records"].as_array().unwrap();
    records.iter().for_each(assert_record);
    let find = |op: &str, dtype: &str| records.iter().find(|r| r["op"] == op && r["dtype"] == dtype);
    assert!(find("fma", "f32").unwrap()["gflops_median"].as_f64().unwrap() > 0.0);
    assert_eq!(find("fma", "f16").is_some(), report["adapter"]["features"].as_array().unwrap().contains(&"f16".into()));
    for op in ["copy", "read"] {
        assert!(find(op, "f32").unwrap()["gbytes_median"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(records.iter().filter(|r| r["op"] == "dispatch").count(), 2);
}

#[test]
fn a_baseline_is_kept_compared_and_enforced() {
    let dir = folder("regress");
    let cases = "matmul --sizes 32,48x40x56 --layout nn --seconds 0.02";
    let table = succeed(&dir, &format!("{cases} --out a.json"));
    assert!(table.contains("| op ") && table.contains("NN 48x40x56"), "{table}");
    let again = "--regress 1000000 --baseline a.json --format csv";
    assert!(succeed(&dir, &format!("{cases} {again}")).starts_with("op,case,pass,"));
    assert!(succeed(&dir, "compare a.json a.json").contains("| 1.000 "));

    // As if everything had been a million times faster once.
    let mut report: Value = serde_json::from_str(&fs::read_to_string(dir.join("a.json")).unwrap()).unwrap();
    for record in report["records"].as_array_mut().unwrap() {
        record["median_ms"] = (record["median_ms"].as_f64().unwrap() * 1e-6).into();
    }
    fs::write(dir.join("fast.json"), report.to_string()).unwrap();
    fail(&dir, &format!("{cases} --regress 100 --baseline fast.json"), 3, &["slower than the baseline", "48x40x56"]);
    let other = "matmul --sizes 32 --layout nn --seconds 0.02 --regress 10 --baseline a.json";
    fail(&dir, other, 2, &["other cases", "48x40x56", "--out"]);
}

#[test]
fn a_step_is_taken_apart() {
    let dir = folder("step");
    let tiny = "--set model.num_layers=1 --set model.hidden_size=16 --set model.num_attention_heads=2 \
                --set model.seq_length=8 --set model.qkv_slot_num=16 --set model.proj_slot_num=16 \
                --set model.ffn_slot_num=32 --batch-size 2";
    let text = succeed(&dir, &format!("step {tiny} --steps 3 --seconds 0.01 --format json --svg roof.svg"));
    let report: Value = serde_json::from_str(&text).unwrap();
    let records = report["records"].as_array().unwrap();
    records.iter().for_each(assert_record);
    let step = records.iter().find(|r| r["op"] == "step").unwrap();
    assert!(step["tokens_per_second"].as_f64().unwrap() > 0.0);
    let share: f64 = records.iter().filter_map(|r| r["share_percent"].as_f64()).sum();
    assert!((share - 100.0).abs() < 1e-6, "{share}");
    let facts: Vec<&str> = report["facts"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    for fact in ["tokens", "hardware FLOP utilisation", "memory, parameters", "host work of a step", "matrix products"]
    {
        assert!(facts.contains(&fact), "{fact}");
    }
    let summary = report["summary"].as_array().unwrap();
    assert!(summary.iter().any(|line| line.as_str().unwrap().starts_with("matrix products ")));
    let svg = fs::read_to_string(dir.join("roof.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
}

#[test]
fn operators_are_timed_by_name() {
    let text = succeed(&folder("ops"), "ops --filter gelu --seconds 0.01 --format jsonl");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.iter().any(|r| r["pass"] == "forward") && records.iter().any(|r| r["pass"] == "forward+backward"));
    records.iter().for_each(assert_record);
}

#[test]
fn attention_is_timed_by_kernel() {
    let shape = "--batch 2 --heads 3 --seq 19 --head-width 8";
    let text = succeed(&folder("attention"), &format!("attention {shape} --seconds 0.01 --format json"));
    let report: Value = serde_json::from_str(&text).unwrap();
    let records = report["records"].as_array().unwrap();
    records.iter().for_each(assert_record);
    let flops = |pass: &str, kernel: &str| {
        let found = records.iter().find(|r| r["pass"] == pass && r["candidate"] == kernel);
        found.unwrap_or_else(|| panic!("no {pass} {kernel}"))["flops"].as_u64().unwrap()
    };
    // 4 D operations a score of the causal half, and 6 D and 8 D backward.
    let forward = 2 * 2 * 3 * 19 * 19 * 8;
    assert_eq!(flops("forward", "all kernels"), forward);
    assert_eq!(flops("backward", "all kernels"), forward / 2 * 7);
    // A quarter of the channels rotates, in dispatches of its own on a software adapter.
    assert!(records.iter().all(|r| r["case"] == "2x3x19x8, rotary 2"), "{text}");
    let parts = |pass: &str| records.iter().filter(|r| r["pass"] == pass).count();
    assert!(parts("forward") > 1 && parts("backward") > 2);
    let plain = succeed(&folder("attention"), &format!("attention {shape} --rotary 0 --seconds 0.01 --format csv"));
    assert_eq!(plain.lines().filter(|line| line.contains(",forward,")).count(), 1, "{plain}");
}

#[test]
fn a_kernel_can_be_printed_without_an_adapter() {
    let dir = folder("print");
    let text = succeed(&dir, "matmul --print tiles-64x64x16-4x4 --layout nt,tn");
    assert_eq!(text.matches("// Generated: matmul-").count(), 2);
    assert!(text.contains("NT.") && text.contains("TN.") && text.contains("fn product("), "{text}");
    let half = succeed(&dir, "matmul --print tiles-64x64x16-4x4 --layout nn --dtype f16");
    assert!(half.starts_with("enable f16;"), "{half}");
    let pair = succeed(&dir, "matmul --print tiles-64x64x16-4x4-pair --layout tn");
    assert!(pair.contains("-pair") && pair.contains("b2: array<"), "{pair}");
}

#[test]
fn bad_input_is_one_sentence_and_a_code() {
    let dir = folder("bad");
    fs::write(dir.join("text.json"), "hello").unwrap();
    fs::write(dir.join("other.json"), "{\"schema\": 99}").unwrap();
    let cases: [(&str, i32, &[&str]); 20] = [
        ("matmul --print lanes8-8x8-u1-pair --layout nn", 1, &["lanes8-8x8-u1", "-pair"]),
        ("attention --head-width 8 --rotary 3", 1, &["--rotary 3", "even", "8"]),
        ("attention --head-width 8 --rotary 10", 1, &["--rotary 10", "even", "8"]),
        ("matmul --sizes 0", 1, &["\"0\"", "MxNxK"]),
        ("matmul --sizes 4x4", 1, &["\"4x4\"", "for example"]),
        ("matmul --sizes 64 --layout tt", 1, &["\"tt\"", "nn, nt or tn"]),
        ("matmul --sizes 64 --candidate nope", 1, &["\"nope\"", "this adapter has"]),
        ("matmul --sizes 1048576", 3, &["this device allows", "smaller size"]),
        ("matmul --print nope", 1, &["\"nope\"", "bench matmul"]),
        ("matmul --print cooperative16-128x128x32-2x2-w32", 1, &["--dtype f16"]),
        ("attention --seq 0", 1, &["--seq 0", "from 1"]),
        ("ops --filter nope", 1, &["\"nope\"", "selftest"]),
        ("step --preset nope", 1, &["no preset \"nope\"", "bench-tiny"]),
        ("step --steps 0", 1, &["0"]),
        ("roofline --seconds 0", 1, &["0.001 to 3600"]),
        ("roofline --regress 5", 1, &["--baseline"]),
        ("roofline --regress 5 --baseline none.json", 2, &["cannot read none.json"]),
        ("compare text.json text.json", 2, &["text.json is no report"]),
        ("compare other.json other.json", 2, &["schema 99", "reads 1"]),
        ("roofline --out nowhere/a.json", 2, &["nowhere/a.json", "folder that exists"]),
    ];
    for (args, code, words) in cases {
        fail(&dir, args, code, words);
    }
    if cfg!(target_os = "linux") {
        let out = "roofline --seconds 3600 --out /proc/a.json";
        fail(&dir, out, 2, &["cannot write /proc/a.json", "can be written"]);
        // What turns out full at the end takes no results along.
        let output = bench(&dir, "matmul --sizes 32 --layout nn --seconds 0.02 --out /dev/full");
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.code() == Some(2) && table.contains("NN 32x32x32"), "{table}");
    }
    assert!(!dir.join("a.json").exists());
    fail(&dir, "matmul --sizes 0 --out a.json", 1, &["MxNxK"]);
    fail(&dir, "matmul --sizes 32 --candidate nope --out a.json", 1, &["\"nope\""]);
    assert!(!dir.join("a.json").exists(), "a file that is left of a check");
}

//! The page of a run: kept current, made again of its files, safe whatever they hold.

use crate::program::Folder;
use serde_json::{Value, json};
use std::fs;

/// Tags are closed by their own name, nothing is loaded and nothing runs.
#[track_caller]
fn assert_alone(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    for piece in page.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !tag.ends_with('/') && !["!doctype", "meta"].contains(&name) {
            open.push(name);
        }
        assert!(!["script", "link", "img", "iframe", "object", "base", "form", "a"].contains(&name), "<{tag}>");
        assert!(tag.split(' ').skip(1).all(|part| !part.starts_with("on") && !part.starts_with("src=")), "<{tag}>");
        assert_eq!(tag.matches("url(").count(), tag.matches("url(#clip-").count(), "<{tag}>");
        assert!(!tag.contains("href=") && !tag.replace("http-equiv", "").contains("http"), "<{tag}>");
    }
    assert!(open.is_empty(), "{open:?}");
    let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    assert!(page.contains("default-src 'none'") && !style.contains("@import") && !style.contains("url("));
}

fn drawn(page: &str) -> Vec<&str> {
    let captions = page.split("<figcaption>").skip(1);
    captions.map(|caption| caption.split('<').next().unwrap()).collect()
}

#[test]
fn a_run_keeps_its_page_and_the_same_is_made_of_its_files() {
    let folder = Folder::new();
    let ran = folder.train("--out r --set growth=[{at_step=15,ffn_slot_num=24}] --json").ok();
    let kept = folder.text("r/report.html");
    assert_alone(&kept);
    let losses = ["steps", "tokens", "time", "FLOPs"].map(|axis| format!("Loss against {axis}"));
    assert_eq!(drawn(&kept)[..4], losses);
    for part in [
        "Learning rate",
        "Norm of the gradients",
        "Tokens a second",
        "grown, \u{394}logit ",
        "after step 15",
        "num_layers = 1",
    ] {
        assert!(kept.contains(part), "{part}");
    }
    let found: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    let best = found["best"]["val_loss"].as_f64().unwrap();
    let bits = found["best"]["val_bpb"].as_f64().unwrap();
    // One byte is one token here, but for the last.
    assert!((bits - best / std::f64::consts::LN_2).abs() < 1e-9, "{bits}");
    assert!(kept.contains(&format!("{best:.4} nats/token ({bits:.4} bits per byte)")));
    folder.run("report r --out again.html").ok();
    assert_eq!(folder.text("again.html"), kept);
    // A page may be replaced; the picture alone is a file of its own.
    folder.run("report r --out again.html").ok();
    folder.run("report r --out loss.svg").ok();
    let picture = folder.text("loss.svg");
    assert!(picture.starts_with("<svg xmlns=") && picture.contains(">validation<"), "{picture}");
    // Resumed, it goes on.
    folder.run("train --resume r --steps 22 --tune off").ok();
    assert!(folder.text("r/report.html").contains("Step 22 of 22"));
}

#[test]
fn several_runs_lie_over_each_other() {
    let folder = Folder::new();
    folder.train("--out a --set train.eval_interval=5").ok();
    folder.train("--out b --set train.eval_interval=5 --lr 3e-3").ok();
    let said = folder.run("report base=a b --out both.html --json").ok();
    assert!(said.stdout.contains("\"output\":\"both.html\""), "{}", said.stdout);
    let page = folder.text("both.html");
    assert_alone(&page);
    assert!(page.contains("<span>base</span>") && page.contains("<span>b</span>"), "{page}");
    assert!(page.contains("<td>train.lr</td><td>0.001</td><td>0.003</td>"), "{page}");
    assert_eq!(drawn(&page)[..5][4], "Training loss");
}

#[test]
fn what_is_no_run_or_no_report_is_refused() {
    let folder = Folder::new();
    fs::create_dir(folder.path("r")).unwrap();
    for (text, said) in [
        (None, "cannot read r/metrics.jsonl"),
        (Some(""), "r/metrics.jsonl has no line of a run"),
        (Some("{\"kind\":\"run\",\"metrics\":9}\n"), "is of version 9"),
    ] {
        if let Some(text) = text {
            folder.write("r/metrics.jsonl", text);
        }
        let refused = folder.run("report r").refused();
        assert!(refused.contains(said), "{refused}");
    }
    assert!(folder.run("report nosuch").refused().contains("nosuch is not a directory"));
    folder.write("r/metrics.jsonl", "{\"kind\":\"run\"}\n");
    folder.write("mine.html", "<p>my page</p>");
    assert!(folder.run("report r --out mine.html").refused().contains("mine.html is no report of this program"));
    assert_eq!(folder.text("mine.html"), "<p>my page</p>");
    assert!(folder.run("report r --out r.svg").refused().contains("no two losses yet"));
    // A run with nothing to draw has a page that says so. Nor is a page of somebody's own replaced by a run.
    folder.run("report r --out r.html").ok();
    assert!(folder.text("r.html").contains("no two losses yet"));
    fs::create_dir(folder.path("s")).unwrap();
    folder.write("s/report.html", "mine");
    let ran = folder.train("--out s").ok();
    assert_eq!(ran.stderr.matches("s/report.html is no report of this program").count(), 1, "{}", ran.stderr);
    assert_eq!(folder.text("s/report.html"), "mine");
}

/// Metrics as another program, or an attacker, may leave them: long, of version 1, torn, going back, with markup everywhere.
#[test]
fn a_page_is_safe_whatever_the_metrics_hold() {
    let folder = Folder::new();
    fs::create_dir(folder.path("evil")).unwrap();
    let evil =
        "</pre></style><script>alert(1)</script><img src=http://x onerror=y>\u{1b}[2J\u{202e}\0\"'&url(http://x)";
    let mut text =
        format!("{}\n", json!({"kind": "run", "from_step": 0, "adapter": evil, "data": evil, "version": evil}));
    for step in 0..30_000_u32 {
        let loss = 4.0 - f64::from(step) / 1e4 + f64::from(step % 7) / 100.0;
        text += &format!(
            "{{\"kind\":\"train\",\"step\":{step},\"loss\":{loss},\"lr\":1e-3,\"tokens\":{},\"seconds\":{}}}\n",
            64 * (step + 1),
            step
        );
        if step % 1000 == 999 {
            text += &format!("{}\n", json!({"kind": "sample", "step": step, "text": evil}));
            text += &format!("{}\n", json!({"kind": "eval", "step": step + 1, "val_loss": loss}));
        }
    }
    text += &format!("{}\n", json!({"kind": "rollback", "from_step": 3, "to_step": 1, "why": evil}));
    text += "[1]\n\u{fffd}\n{\"kind\":\"growth\",\"step\":3,\"record\":{\"at_step\":\"<b>\"}}\n";
    text += &format!("{{\"kind\":\"eval\",\"step\":1e400,\"val_loss\":-1e308}}\n{{\"{}\":1}}\n", "x".repeat(1 << 17));
    text += "{\"kind\":\"train\",\"st";
    folder.write("evil/metrics.jsonl", text);
    folder.write("evil/config.toml", "[model]\nnum_layers = 1000000\n[train]\nmax_steps = \"<b>\"\n");
    folder.run("report evil --out page.html").ok();
    let page = folder.text("page.html");
    assert_alone(&page);
    assert!(page.contains("&lt;script&gt;") && !page.contains('\u{1b}') && page.len() < 400_000, "{}", page.len());
    assert!(page.contains("a point is the mean of up to 64 of them"), "{page}");
    assert!(page.contains("Step 30,000,") && page.contains("cannot be read, so there are no FLOPs"), "{page}");
}

//! Draws the losses of a run, with its growths: `cargo run --release --example plot_run -- RUN FILE.svg`.
//! Reads RUN/metrics.jsonl; needs no GPU.

use serde_json::Value;
use std::fmt::Write;
use std::{env, error, fs};

const SIZE: (f64, f64) = (760.0, 360.0);
const LEFT: f64 = 52.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;

type Points = Vec<(f64, f64)>;

fn main() -> Result<(), Box<dyn error::Error>> {
    let mut arguments = env::args().skip(1);
    let (run, out) = (arguments.next().ok_or("give a run")?, arguments.next().ok_or("give a file to write")?);
    let text = fs::read_to_string(format!("{run}/metrics.jsonl"))?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of = |kind: &'static str| lines.iter().filter(move |line| line["kind"] == kind);
    // The first version of the file counted the steps of training from 0, and did not say its version.
    let first = if of("run").any(|line| line["metrics"].is_u64()) { 0.0 } else { 1.0 };
    let points = |kind, loss: &str, first: f64| -> Points {
        of(kind).filter_map(|line| Some((line["step"].as_f64()? + first, line[loss].as_f64()?))).collect()
    };
    let (train, val) = (points("train", "loss", first), points("eval", "val_loss", 0.0));
    let floor = of("run").find_map(|line| line["entropy_floor"].as_f64());
    let steps = train.iter().map(|p| p.0).fold(1.0, f64::max);
    let low = floor.unwrap_or_else(|| train.iter().map(|p| p.1).fold(f64::MAX, f64::min)).min(train[0].1) - 0.1;
    let high = train.iter().chain(&val).map(|p| p.1).fold(low + 1.0, f64::max);
    let x = |step: f64| LEFT + (SIZE.0 - LEFT - 12.0) * step / steps;
    let y = |loss: f64| TOP + (SIZE.1 - TOP - BOTTOM) * (high - loss) / (high - low);

    let (w, h) = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"#fff\"/>\n"
    );
    let label = |svg: &mut String, at: (f64, f64), anchor: &str, color: &str, text: &str| {
        let (x, y) = at;
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{text}</text>")
    };
    let line = |svg: &mut String, points: &Points, style: &str| {
        let path: Vec<String> = points.iter().map(|&(a, b)| format!("{:.1},{:.1}", x(a), y(b))).collect();
        writeln!(svg, "<polyline fill=\"none\" {style} points=\"{}\"/>", path.join(" "))
    };
    for loss in (low.ceil() as i64)..=(high.floor() as i64) {
        let loss = loss as f64;
        line(&mut svg, &vec![(0.0, loss), (steps, loss)], "stroke=\"#ddd\"")?;
        label(&mut svg, (LEFT - 8.0, y(loss) + 4.0), "end", "#444", &loss.to_string())?;
    }
    for step in (0..=6).map(|i| (steps * f64::from(i) / 6.0).round()) {
        label(&mut svg, (x(step), h - BOTTOM + 18.0), "middle", "#444", &step.to_string())?;
    }
    label(&mut svg, (w / 2.0, h - 8.0), "middle", "#444", "optimizer steps")?;
    label(&mut svg, (8.0, 18.0), "start", "#444", "loss, nats per token")?;
    if let Some(floor) = floor {
        line(&mut svg, &vec![(0.0, floor), (steps, floor)], "stroke=\"#888\" stroke-dasharray=\"2 4\"")?;
        label(&mut svg, (x(0.0) + 6.0, y(floor) - 5.0), "start", "#666", "entropy of the text: no model is below")?;
    }
    line(&mut svg, &train, "stroke=\"#9ab8d8\" stroke-width=\"1\"")?;
    line(&mut svg, &val, "stroke=\"#0b4f8a\" stroke-width=\"2\"")?;
    for growth in of("growth") {
        let (step, record) = (growth["step"].as_f64().unwrap_or(0.0), &growth["record"]);
        line(&mut svg, &vec![(step, low), (step, high)], "stroke=\"#c33\" stroke-dasharray=\"6 4\"")?;
        let (aside, anchor) = if step > 0.55 * steps { (-8.0, "end") } else { (8.0, "start") };
        let [before, after, change] = ["params_before", "params_after", "max_logit_change"].map(|key| &record[key]);
        let said =
            [format!("step {step}: grows from {before} to {after} parameters"), format!("logits change by {change}")];
        for (i, said) in said.iter().enumerate() {
            label(&mut svg, (x(step) + aside, TOP + 12.0 + 16.0 * i as f64), anchor, "#a22", said)?;
        }
    }
    label(&mut svg, (w - 12.0, 18.0), "end", "#0b4f8a", "dark: validation, light: training")?;
    svg.push_str("</svg>\n");
    fs::write(&out, svg)?;
    println!("{} steps of {run}, drawn into {out}", train.len());
    Ok(())
}

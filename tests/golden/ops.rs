//! Operator cases.

use crate::case::Case;
use crate::common::{Ran, backward, words};
use tokenformer::config::NormActivation;
use tokenformer::graph::Graph;
use tokenformer::ops::attention::{Attention, causal_attention};
use tokenformer::ops::cross_entropy::IGNORED;
use tokenformer::ops::embedding::TokenRows;
use tokenformer::ops::pattention::Settings;
use tokenformer::ops::stats::{STATS, fresh_stats};
use tokenformer::ops::{cross_entropy as head, embedding as lookup, gelu as activation, rotary};
use tokenformer::ops::{layer_norm as norm, pattention as attend};

fn training() -> Graph {
    Graph::training(crate::common::kernels())
}

pub fn norm_activation(name: &str) -> NormActivation {
    serde_json::from_value(serde_json::Value::String(name.to_string())).unwrap()
}

/// tau of a scale: the softmax form multiplies by tau^2.
pub fn tau(norm: NormActivation, scale: f64) -> f64 {
    if norm == NormActivation::Softmax { scale.sqrt() } else { scale }
}

fn inputs<'a>(case: &Case, names: &[&'a str]) -> Vec<(&'a str, Vec<u32>)> {
    names.iter().map(|&n| (n, words(&case.float(n).data))).collect()
}

pub fn pattention(case: &mut Case) {
    let mut g = training();
    let [x, keys, values] = ["in.x", "in.keys", "in.values"].map(|n| g.parameter(n, &case.float(n).shape));
    let norm = norm_activation(case.config["activation"].as_str().unwrap());
    let settings = Settings {
        norm,
        tau: tau(norm, case.f64("scale")),
        eps: case.f64("eps"),
        gelu_tanh: case.config["gelu_tanh"].as_bool().unwrap(),
        zeros_rest: false,
    };
    let (y, weights) = attend::with_weights(&mut g, x, attend::Tokens { keys, values }, settings).unwrap();
    backward(&mut g, y).unwrap();
    g.keep(y, "out.y");
    g.keep(weights, "out.weights");
    let mut given = inputs(case, &["in.x", "in.keys", "in.values"]);
    given.push(("upstream", words(&case.float("in.grad_out").data)));
    let ran = Ran::new(&g, &given).unwrap();
    for name in ["out.y", "out.weights"] {
        case.expect(name, &ran.read(name));
    }
    for name in ["x", "keys", "values"] {
        case.expect(&format!("grad.{name}"), &ran.read(&format!("grad:in.{name}")));
    }
}

pub fn layer_norm(case: &mut Case) {
    let mut g = training();
    let x = g.parameter("in.x", &case.float("in.x").shape);
    let mut names = vec!["in.x"];
    let affine = case.config["affine"].as_bool().unwrap().then(|| {
        names.extend(["in.weight", "in.bias"]);
        ["in.weight", "in.bias"].map(|n| g.parameter(n, &case.float(n).shape))
    });
    let y = norm::layer_norm(&mut g, x, affine.map(|[w, b]| (w, b)), case.f64("eps")).unwrap();
    backward(&mut g, y).unwrap();
    g.keep(y, "out.y");
    let mut given = inputs(case, &names);
    given.push(("upstream", words(&case.float("in.grad_out").data)));
    let ran = Ran::new(&g, &given).unwrap();
    case.expect("out.y", &ran.read("out.y"));
    for name in names {
        case.expect(&name.replace("in.", "grad."), &ran.read(&format!("grad:{name}")));
    }
}

pub fn rotary_attention(case: &mut Case) {
    let [batch, seq, heads, width, rot] = ["batch", "seq", "heads", "head_width", "rot"].map(|k| case.usize(k));
    let mut g = training();
    let names = ["in.q", "in.k", "in.v"];
    // Activations as in a model: the parameters are copied by an addition of zeros.
    let zeros = g.state("zeros", &[batch * seq, heads * width]);
    let [q, k, v] = names.map(|n| {
        let p = g.parameter(n, &[batch * seq, heads * width]);
        tokenformer::ops::add::add(&mut g, p, zeros).unwrap()
    });
    let table = g.state("table", &[seq, rot]);
    let run = g.state("run", &[4]);
    let rotation = rotary::Rotary { heads, head_width: width, rotary_width: rot, seq };
    rotary::rotate(&mut g, q, table, run, rotation).unwrap();
    rotary::rotate(&mut g, k, table, run, rotation).unwrap();
    let shape = Attention { batch, heads, q_rows: seq, kv_rows: seq };
    let y = causal_attention(&mut g, [q, k, v], run, shape).unwrap();
    backward(&mut g, y).unwrap();
    g.keep(y, "out.y");
    g.keep(q, "out.q_rot");
    g.keep(k, "out.k_rot");
    let grads: Vec<_> = names.iter().map(|n| g.grad(g.find(n).unwrap()).unwrap()).collect();
    for (grad, name) in grads.into_iter().zip(["grad.q", "grad.k", "grad.v"]) {
        g.keep(grad, name);
    }
    let angles = rotary::table(seq, rot, case.f64("base"));
    let mut given = inputs(case, &names);
    given.push(("table", words(&angles)));
    given.push(("upstream", words(&case.float("in.grad_out").data)));
    let ran = Ran::new(&g, &given).unwrap();
    let half =
        |first: usize| angles.chunks(rot).flat_map(|row| row[first..first + rot / 2].to_vec()).collect::<Vec<_>>();
    case.expect("out.cos", &half(0));
    case.expect("out.sin", &half(rot / 2));
    for name in ["out.y", "out.q_rot", "out.k_rot", "grad.q", "grad.k", "grad.v"] {
        case.expect(name, &ran.read(name));
    }
}

pub fn cross_entropy(case: &mut Case) {
    let (rows, vocab) = (case.usize("batch") * case.usize("seq"), case.usize("vocab"));
    let mask = case.float("in.mask").data.clone();
    let counted: f64 = mask.iter().map(|m| f64::from(*m)).sum();
    let mut g = training();
    let logits = g.state("logits", &[rows, vocab]);
    let targets = g.state("targets", &[rows]);
    let stats = g.state("stats", &[STATS]);
    let losses = head::cross_entropy(&mut g, logits, targets, stats, 1.0 / counted).unwrap();
    g.keep(losses, "losses");
    let with_mask = |(&t, &m): (&u32, &f32)| if m == 0.0 { IGNORED } else { t };
    let masked: Vec<u32> = case.int("in.targets").1.iter().zip(&mask).map(with_mask).collect();
    let stats = words(&fresh_stats(1.0));
    let given = [("logits", words(&case.float("in.logits").data)), ("targets", masked), ("stats", stats)];
    let ran = Ran::new(&g, &given).unwrap();
    let loss: f64 = ran.read("losses").iter().map(|l| f64::from(*l)).sum::<f64>() / counted;
    case.expect("out.loss", &[loss as f32]);
    case.expect("grad.logits", &ran.read("logits"));
}

pub fn embedding(case: &mut Case) {
    let tokens = case.int("in.tokens").1.clone();
    let (vocab, width) = (case.usize("vocab"), case.usize("width"));
    let mut g = training();
    let [ids, rows, starts] =
        [("tokens", tokens.len()), ("rows", tokens.len()), ("starts", vocab + 1)].map(|(name, n)| g.state(name, &[n]));
    let embed = g.parameter("in.embed", &[vocab, width]);
    let y = lookup::embedding(&mut g, ids, embed, Some(TokenRows { sorted_rows: rows, starts })).unwrap();
    backward(&mut g, y).unwrap();
    g.keep(y, "out.y");
    let index = tokenformer::data::token_index(&tokens, vocab).unwrap();
    let mut given = inputs(case, &["in.embed"]);
    given.extend([("tokens", tokens), ("rows", index.rows), ("starts", index.starts)]);
    given.push(("upstream", words(&case.float("in.grad_out").data)));
    let ran = Ran::new(&g, &given).unwrap();
    case.expect("out.y", &ran.read("out.y"));
    case.expect("grad.embed", &ran.read("grad:in.embed"));
}

pub fn gelu(case: &mut Case) {
    let x = case.float("in.x").data.clone();
    let run = |tanh: bool| {
        let mut g = training();
        let input = g.parameter("in.x", &[x.len()]);
        let y = activation::gelu(&mut g, input, tanh).unwrap();
        backward(&mut g, y).unwrap();
        g.keep(y, "y");
        Ran::new(&g, &[("in.x", words(&x)), ("upstream", words(&vec![1.0; x.len()]))]).unwrap()
    };
    let exact = run(false);
    case.expect("out.y", &exact.read("y"));
    case.expect("out.slope", &exact.read("grad:in.x"));
    case.expect("out.y_tanh", &run(true).read("y"));
}

//! Residual addition: y = x + b, where x and y are the residual stream: f32 in every precision, as PyTorch's autocast keeps
//! them. The gradient of y is passed to both unchanged, without a copy.

use super::{Case, Input};
use crate::error::Result;
use crate::graph::{ElementwiseDims, Graph, Tensor};
use crate::kernel::Access::{Read, Write};
use crate::kernel::Kernel;

static ADD: Kernel = Kernel::new("elementwise.wgsl", "add", &[Read, Read, Write]);

/// y = x + b, elementwise; `x` is of the residual stream, `b` another activation of its shape.
pub fn add(g: &mut Graph, x: Tensor, b: Tensor) -> Result<Tensor> {
    let shape = g.shape(x).to_vec();
    let n: usize = shape.iter().product();
    let y = g.residual("sum", &shape);
    g.call(&ADD).bind(&[x, b, y]).parameters(ElementwiseDims::of(n)).groups(n.div_ceil(256)).record()?;
    g.on_backward(move |g| {
        let dy = g.take_grad(y)?;
        g.set_grad(x, dy);
        g.set_grad(b, dy);
        Ok(())
    });
    Ok(y)
}

fn case(n: usize) -> Case {
    Case {
        op: "add",
        name: n.to_string(),
        inputs: vec![Input::residual("x", &[n], 1.0), Input::normal("b", &[n], 1.0)],
        build: Box::new(|g, t| Ok(vec![add(g, t[0], t[1])?])),
        reference: Box::new(|x| vec![x[0].iter().zip(&x[1]).map(|(a, b)| a + b).collect()]),
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    [1, 256, 1031].into_iter().map(case).collect()
}

pub(super) fn large_cases() -> Vec<Case> {
    vec![case(256 * 65_535 + 3)]
}

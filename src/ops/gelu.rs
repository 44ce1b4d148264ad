//! GELU with the error function, x Phi(x), and its tanh approximation.
//!
//! Derivative: Phi(x) + x phi(x).

use super::{Case, Input};
use crate::error::Result;
use crate::graph::{ElementwiseDims, Graph, Tensor};
use crate::kernel::Access::{Read, Write};
use crate::kernel::Kernel;

static FORWARD: Kernel = Kernel::new("elementwise.wgsl", "gelu_forward", &[Read, Write]);
static BACKWARD: Kernel = Kernel::new("elementwise.wgsl", "gelu_backward", &[Read, Read, Write]);

/// y = gelu(x), elementwise.
pub fn gelu(g: &mut Graph, x: Tensor, tanh: bool) -> Result<Tensor> {
    let shape = g.shape(x).to_vec();
    let n: usize = shape.iter().product();
    let y = g.activation("gelu", &shape);
    let dims = ElementwiseDims { use_tanh: u32::from(tanh), ..ElementwiseDims::of(n) };
    g.call(&FORWARD).bind(&[x, y]).parameters(dims).groups(n.div_ceil(256)).record()?;
    g.on_backward(move |g| {
        let dy = g.take_grad(y)?;
        let (dx, add) = g.grad_target(x)?;
        let dims = ElementwiseDims { accumulate: u32::from(add), ..dims };
        g.call(&BACKWARD).bind(&[x, dy, dx]).parameters(dims).groups(n.div_ceil(256)).record()
    });
    Ok(y)
}

/// gelu(x) in f64.
pub fn reference(x: f64, tanh: bool) -> f64 {
    if tanh {
        return 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh());
    }
    0.5 * x * erfc(-x / std::f64::consts::SQRT_2)
}

/// Complementary error function: its Taylor series near zero, its continued fraction beyond.
/// Absolute error below 1e-15 for what GELU needs.
fn erfc(x: f64) -> f64 {
    let z = x.abs();
    if z < 2.5 {
        let (mut term, mut sum) = (z, z);
        for n in 1..80 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 1.0 - x.signum() * sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let fraction = (1..=120).rev().fold(z, |f, n| z + f64::from(n) / 2.0 / f);
    let tail = (-z * z).exp() / (fraction * std::f64::consts::PI.sqrt());
    if x > 0.0 { tail } else { 2.0 - tail }
}

fn case(n: usize, tanh: bool) -> Case {
    Case {
        op: "gelu",
        name: format!("{n}{}", if tanh { " tanh" } else { "" }),
        inputs: vec![Input::normal("x", &[n], 3.0)],
        build: Box::new(move |g, t| Ok(vec![gelu(g, t[0], tanh)?])),
        reference: Box::new(move |x| vec![x[0].iter().map(|&v| reference(v, tanh)).collect()]),
        ..Case::default()
    }
}

pub(super) fn large_cases() -> Vec<Case> {
    vec![case(256 * 65_535 + 3, true)]
}

pub(super) fn cases() -> Vec<Case> {
    vec![case(1, false), case(255, false), case(257, true), case(1031, false)]
}

#[cfg(test)]
mod tests {
    #[test]
    fn erfc_agrees_with_tables() {
        // Abramowitz and Stegun, table 7.1, extended to 17 digits with mpmath.
        for (x, want) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (1.0, 0.157_299_207_050_285_13),
            (2.4, 0.000_688_513_896_645_078_9),
            (2.6, 0.000_236_034_416_529_348_04),
            (4.0, 1.541_725_790_028_002e-8),
            (-1.0, 1.842_700_792_949_715),
            (-3.0, 1.999_977_909_503_001_4),
        ] {
            let got = super::erfc(x);
            assert!((got - want).abs() < 2e-13, "erfc({x}) = {got}, not {want}");
        }
    }
}

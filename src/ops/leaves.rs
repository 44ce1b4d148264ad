//! Sums of the gradients of two leaves of an update (`shaders/leaves.wgsl`): y <- x + y, where numbers below 2^-126 are zero
//! before and after the addition, so that a host makes the same bits as any device.

use super::{Case, Input};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Kernel, parameter_block, word};
use std::ops::Range;

static ADD_LEAF: Kernel = Kernel::new("leaves.wgsl", "add_leaf", &[Read, Write]);

parameter_block! {
    /// The parameter block of `shaders/leaves.wgsl`.
    pub(crate) struct LeavesDims {
        /// element, of both
        first: u32,
        n: u32,
    }
}

/// Adds the elements `range` of `left` to those of `total`.
pub(crate) fn add_leaf(g: &mut Graph, left: Tensor, total: Tensor, range: Range<usize>) -> Result<()> {
    let dims = LeavesDims { first: word(range.start), n: word(range.len()) };
    let call = g.call(&ADD_LEAF).bind(&[left, total]).parameters(dims).moves(12 * range.len() as u64);
    call.groups(range.len().div_ceil(256)).record()
}

fn case(name: &str, range: Range<usize>, n: usize) -> Case {
    let (of_build, of_reference) = (range.clone(), range);
    Case {
        op: "leaves",
        name: name.to_string(),
        inputs: vec![
            Input::normal("left", &[n], 1.0).without_gradient(),
            Input::normal("total", &[n], 1.0).without_gradient(),
        ],
        build: Box::new(move |g, t| {
            add_leaf(g, t[0], t[1], of_build.clone())?;
            Ok(vec![t[1]])
        }),
        reference: Box::new(move |x| {
            let mut total = x[1].clone();
            of_reference.clone().for_each(|i| total[i] += x[0][i]);
            vec![total]
        }),
        gradient: false,
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![case("1", 0..1, 1), case("all of 1031", 0..1031, 1031), case("300 from 77 on", 77..377, 1031)]
}

pub(super) fn large_cases() -> Vec<Case> {
    vec![case("more than a grid", 0..256 * 65_535 + 3, 256 * 65_535 + 3)]
}

//! Which tensor of a step is the first that is not finite: the step is run once more, one dispatch at a time.

use crate::data::Batch;
use crate::error::Result;
use crate::gpu::engine::{Block, Engine};
use crate::graph::plan::Plan;
use crate::kernel::{Access, Dtype};
use crate::train::trainer::{RunPlans, Trainer};
use half::f16;

/// The first tensor that holds a value that is not finite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Name of the tensor.
    pub tensor: String,
    /// Its layer, from 0, where it belongs to one.
    pub layer: Option<usize>,
    /// The kernel that wrote it; `None` for a parameter that was not finite before.
    pub kernel: Option<String>,
}

/// A finding in words, to be read on from a semicolon.
pub fn describe(finding: Option<&Finding>) -> String {
    let Some(Finding { tensor, layer, kernel }) = finding else {
        return "run once more, that step's numbers were finite, so the GPU may be at fault: try `tokenformer selftest`"
            .to_owned();
    };
    let place = layer.map_or(String::new(), |layer| format!(" of layer {layer}"));
    let by = kernel.as_ref().map_or(String::new(), |kernel| format!(", written by {kernel}"));
    format!("the first tensor that is not finite is \"{tensor}\"{place}{by}")
}

impl Trainer<'_> {
    /// Runs step `step`, from 0, on `batches` without an update and looks at everything it writes.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn diagnose(&self, batches: &[Batch], step: u64, prompt: usize) -> Result<Option<Finding>> {
        for (name, tensor) in self.parameters()? {
            if !tensor.data.iter().all(|x| x.is_finite()) {
                let layer = layer_of(&name);
                return Ok(Some(Finding { tensor: name, layer, kernel: None }));
            }
        }
        let engine = self.engine();
        let plan = RunPlans::new(&self.model, &self.train, &self.cohorts, prompt, self.kernels())?.micro;
        for (number, batch) in batches.iter().enumerate() {
            self.prepare(batch, self.own(step, number))?;
            for (i, call) in plan.calls.iter().enumerate() {
                engine.run_one(self.micro(), i)?;
                for (&tensor, access) in call.tensors.iter().zip(call.kernel.bindings) {
                    let info = &plan.tensors[tensor.index()];
                    if *access == Access::Write && !finite(engine, &self.block(&plan, tensor), info.dtype)? {
                        let name = info.name.clone();
                        let layer = layer_of(&name).or(call.layer);
                        return Ok(Some(Finding { tensor: name, layer, kernel: Some(call.kernel.name()) }));
                    }
                }
            }
        }
        Ok(None)
    }

    fn block(&self, plan: &Plan, tensor: crate::graph::Tensor) -> Block {
        self.memory().block(plan, tensor)
    }
}

fn finite(engine: &Engine, block: &Block, dtype: Dtype) -> Result<bool> {
    Ok(match dtype {
        Dtype::F32 => engine.read(block)?.iter().all(|x| x.is_finite()),
        Dtype::F16 => engine.read_halves(block)?.iter().all(|&bits| f16::from_bits(bits).is_finite()),
    })
}

/// The layer in the name of a parameter or its gradient.
fn layer_of(name: &str) -> Option<usize> {
    let (_, rest) = name.split_once("layers.")?;
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_sentences() {
        let finding = Finding { tensor: "scores".into(), layer: Some(3), kernel: Some("matmul-nt-x".into()) };
        let said = describe(Some(&finding));
        assert_eq!(said, "the first tensor that is not finite is \"scores\" of layer 3, written by matmul-nt-x");
        assert!(describe(None).contains("selftest"));
        assert_eq!(layer_of("grad:layers.12.mlp.key_param_tokens"), Some(12));
        assert_eq!(layer_of("norm.weight"), None);
    }
}

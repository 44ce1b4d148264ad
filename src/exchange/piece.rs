//! A tensor of another program's file, and the parameters it is made of.

use crate::array::HostTensor;
use crate::config::Parameter;
use crate::error::{Error, Result};

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its name there.
    pub(crate) name: String,
    /// Its shape there.
    pub(crate) shape: Vec<usize>,
    /// The parameters of this program whose values it has: one, or query, key and value; none for zeros.
    pub(crate) parts: Vec<String>,
    /// Runs of rows that each part is cut into, which take turns: the heads, or 1 where the parts follow each other.
    pub(crate) runs: usize,
}

impl From<Parameter> for Piece {
    /// A parameter under its own name.
    fn from(parameter: Parameter) -> Self {
        Self { name: parameter.name.clone(), shape: parameter.shape, parts: vec![parameter.name], runs: 1 }
    }
}

impl Piece {
    /// Values in it.
    pub(crate) fn values(&self) -> usize {
        self.shape.iter().product()
    }

    /// The tensor out of its parts, in order. What it is made of is dropped as it goes.
    ///
    /// # Errors
    /// A defect: other parts than those of [`Self::parts`].
    pub(crate) fn join(&self, mut parts: Vec<HostTensor>) -> Result<HostTensor> {
        let values = self.values();
        if parts.is_empty() && self.parts.is_empty() {
            return Ok(HostTensor::zeros(&self.shape));
        }
        if parts.len() != self.parts.len() || parts.iter().map(|part| part.data.len()).sum::<usize>() != values {
            return Err(Error::defect(format!("{} is put together of other parts", self.name)));
        }
        if let Some(only) = parts.pop_if(|_| self.parts.len() == 1) {
            return Ok(HostTensor { shape: self.shape.clone(), data: only.data });
        }
        let run = values / (self.runs * self.parts.len());
        let mut data = Vec::with_capacity(values);
        for at in (0..self.runs).map(|head| head * run) {
            parts.iter().for_each(|part| data.extend_from_slice(part.data.get(at..at + run).unwrap_or_default()));
        }
        Ok(HostTensor { shape: self.shape.clone(), data })
    }

    /// The parts of the tensor, with their names.
    ///
    /// # Errors
    /// A defect: a tensor of another shape.
    pub(crate) fn split(&self, tensor: HostTensor) -> Result<Vec<(String, HostTensor)>> {
        let (count, values) = (self.parts.len(), tensor.data.len());
        if tensor.shape != self.shape || values != self.values() {
            return Err(Error::defect(format!("{} of shape {:?} is taken apart", self.name, tensor.shape)));
        }
        if let [only] = self.parts.as_slice() {
            return Ok(vec![(only.clone(), tensor)]);
        }
        let mut shape = tensor.shape;
        if let Some(rows) = shape.first_mut() {
            *rows /= count;
        }
        let run = values / (self.runs * count);
        let part = |(index, name): (usize, &String)| {
            let mut data = Vec::with_capacity(values / count);
            for at in (0..self.runs).map(|head| (head * count + index) * run) {
                data.extend_from_slice(tensor.data.get(at..at + run).unwrap_or_default());
            }
            (name.clone(), HostTensor { shape: shape.clone(), data })
        };
        Ok(self.parts.iter().enumerate().map(part).collect())
    }
}

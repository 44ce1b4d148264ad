//! A checkpoint whose parameters are made one at a time while it is written: of a model that need not fit the memory.

use std::io;
use std::path::Path;

use super::Metadata;
use super::format::{Encoded, Shapes};
use super::storage::Files;
use crate::array::HostTensor;
use crate::error::{Error, Result};

/// Writes the checkpoint of parameters of these shapes, without moments, to `path`, at once and durably or not at all.
///
/// Each parameter is made twice, first for the checksums: what comes first in the file. At most one is held.
///
/// # Errors
/// What `make` says; as [`Checkpoint::write`](super::Checkpoint::write).
pub(crate) fn write_made<M: Metadata>(
    path: &Path,
    meta: &M,
    shapes: &Shapes,
    make: &dyn Fn(&str) -> Result<HostTensor>,
) -> Result<()> {
    let made = |(name, shape): (&String, &Vec<usize>)| {
        let tensor = make(name)?;
        if tensor.shape == *shape && tensor.data.len() == shape.iter().product::<usize>() {
            return Ok(tensor);
        }
        Err(Error::defect(format!("{name} was made of shape {:?} and should have {shape:?}", tensor.shape)))
    };
    let values = |each: &mut dyn FnMut(&[f32]) -> io::Result<()>| {
        shapes.iter().try_for_each(|parameter| each(&made(parameter).map_err(io::Error::other)?.data))
    };
    Encoded::new(meta, shapes, Box::new(values))?.commit(&Files, path)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Said, sample};
    use super::super::{Checkpoint, Checks, Opened};
    use super::*;

    #[test]
    fn what_is_made_in_turn_is_the_file_of_what_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let [held, made] = ["held", "made"].map(|name| dir.path().join(name));
        let mut checkpoint = sample(3);
        (checkpoint.moment1, checkpoint.moment2, checkpoint.averages) = Default::default();
        checkpoint.write(&held).unwrap();
        let shapes = checkpoint.params.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
        write_made(&made, &checkpoint.meta, &shapes, &|name| Ok(checkpoint.params[name].clone())).unwrap();
        assert_eq!(std::fs::read(&held).unwrap(), std::fs::read(&made).unwrap());
        let opened: Opened<Said> = Opened::read(&made, Checks::Required).unwrap();
        assert_eq!(opened.checkpoint, checkpoint);
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made");
        let Checkpoint { meta, params, .. } = sample(3);
        let shapes = params.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
        // The second time: the checksums were possible.
        let times = std::cell::Cell::new(0);
        let error = write_made(&path, &meta, &shapes, &|name| {
            times.set(times.get() + 1);
            if times.get() > 3 { Err(Error::input("the disk of the model is gone")) } else { Ok(params[name].clone()) }
        });
        assert_eq!(error, Err(Error::input("the disk of the model is gone")));
        let wrong = write_made(&path, &meta, &shapes, &|_| Ok(HostTensor::zeros(&[1])));
        assert_eq!(wrong.unwrap_err().exit_code(), 70);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

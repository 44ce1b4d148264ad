//! Graphs that read the moving averages of the parameters in the place of the parameters.

use super::{Class, Graph};

/// Name of a parameter's moving average in device memory.
pub(crate) fn average_name(parameter: &str) -> String {
    format!("ema:{parameter}")
}

impl Graph {
    /// Makes a recorded graph read the averages of all parameters: they lie in memory as the parameters do, so only the names
    /// are others. Of a graph that writes no parameter.
    #[must_use]
    pub(crate) fn of_averages(mut self) -> Self {
        for info in self.tensors.iter_mut().filter(|info| info.class == Class::Parameter) {
            (info.class, info.name) = (Class::Average, average_name(&info.name));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EMBEDDING;
    use crate::graph::plan::{Place, Plan};
    use crate::kernel::{KernelTable, Target};

    /// Where an embedding lies in parts, so does its average.
    #[test]
    fn averages_lie_as_the_parameters_do() {
        let shapes = [("a", vec![5]), (EMBEDDING, vec![70_000, 8]), ("b", vec![3, 100])];
        let shapes = shapes.map(|(name, shape)| (name.to_owned(), shape));
        let recorded = || {
            let mut g = Graph::forward_only(&KernelTable::defaults(Target { max_binding: 1 << 20, ..Target::WEBGPU }));
            g.state("tokens", &[7]);
            g.pack(&shapes, Class::Parameter, str::to_owned).unwrap();
            g
        };
        let [own, averaged] = [recorded(), recorded().of_averages()].map(|graph| Plan::unchecked(&graph));
        for (a, b) in own.tensors.iter().zip(&averaged.tensors) {
            assert_eq!((&a.shape, a.view, &a.parts), (&b.shape, b.view, &b.parts));
            let is_state = a.class == Class::State;
            assert_eq!(b.name, if is_state { a.name.clone() } else { average_name(&a.name) });
            assert_eq!(b.class, if is_state { Class::State } else { Class::Average });
        }
        let table = averaged.tensors.iter().position(|info| info.name == average_name(EMBEDDING)).unwrap();
        assert_eq!(averaged.places[table], Place::Parts);
    }
}

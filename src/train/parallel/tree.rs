//! In which order the gradients of an update are added up: by a binary tree over its leaves, whoever computes them.
//!
//! Leaves come in order. Two neighbours of the same size become one as soon as the left one starts at a multiple of both
//! together; what is left over in the end is joined from the right. So the tree follows from the number of leaves alone:
//! of six, ((0 1) (2 3)) (4 5).

/// Neighbouring leaves that were added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    /// The first of them.
    first: usize,
    /// How many they are.
    size: usize,
}

impl Node {
    fn is_joined_to(self, right: Self) -> bool {
        self.size == right.size && self.first.is_multiple_of(2 * self.size)
    }
}

/// The sums of what came so far, the leftmost first.
pub(super) struct Fold<T>(Vec<(Node, T)>);

impl<T> Fold<T> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes the node that follows the last one; `add` adds a right sum to a left one.
    pub(super) fn push(&mut self, node: Node, value: T, mut add: impl FnMut(T, T) -> T) {
        self.0.push((node, value));
        while let [.., (left, _), (right, _)] = self.0[..]
            && left.is_joined_to(right)
        {
            self.join(&mut add);
        }
    }

    /// Adds up what is left; `None` of nothing.
    pub(super) fn finish(mut self, mut add: impl FnMut(T, T) -> T) -> Option<T> {
        while self.0.len() > 1 {
            self.join(&mut add);
        }
        self.0.pop().map(|(_, value)| value)
    }

    fn join(&mut self, add: &mut impl FnMut(T, T) -> T) {
        if let (Some((right, y)), Some((left, x))) = (self.0.pop(), self.0.pop()) {
            self.0.push((Node { first: left.first, size: left.size + right.size }, add(x, y)));
        }
    }
}

/// What is done about one leaf where sums lie in two kinds of places: the last one where gradients are computed, and the
/// others each in a place of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeafStep {
    /// The place that the sum before goes to, because this leaf is computed where it is.
    pub(super) save_to: Option<usize>,
    /// The places whose sums are then added to this leaf, in this order.
    pub(super) add: (usize, usize),
}

impl LeafStep {
    /// The places whose sums are added to what was computed, in this order.
    pub(super) fn added(self) -> impl Iterator<Item = usize> {
        (self.add.0..self.add.1).rev()
    }
}

/// What whoever computes `count` leaves from `first` on does about each, and what is left: of all leaves one sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) steps: Vec<LeafStep>,
    /// In order. The last one is where gradients are computed, the others are in places 0, 1, ...
    pub(super) nodes: Vec<Node>,
}

impl Schedule {
    pub(super) fn of(first: usize, count: usize, all: usize) -> Self {
        let mut fold = Fold::new();
        let mut steps = Vec::with_capacity(count);
        for leaf in first..first + count {
            let before = fold.0.len();
            fold.push(Node { first: leaf, size: 1 }, (), |(), ()| ());
            let last = if count == all && leaf + 1 == all { 1 } else { fold.0.len() };
            steps.push(LeafStep { save_to: before.checked_sub(1), add: (last - 1, before) });
        }
        let left: Vec<Node> = fold.0.iter().map(|(node, ())| *node).collect();
        let nodes = if count == all { vec![Node { first: 0, size: all }] } else { left };
        Self { steps, nodes }
    }

    /// Places that it takes.
    pub(super) fn places(&self) -> usize {
        self.steps.iter().filter_map(|step| step.save_to).map(|place| place + 1).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(x: String, y: String) -> String {
        format!("({x} {y})")
    }

    fn tree(leaves: usize) -> String {
        let mut fold = Fold::new();
        (0..leaves).for_each(|leaf| fold.push(Node { first: leaf, size: 1 }, leaf.to_string(), join));
        fold.finish(join).unwrap()
    }

    #[test]
    fn the_tree_follows_from_the_number_of_leaves() {
        let trees = [1, 2, 3, 4, 6, 8].map(tree);
        let known =
            ["0", "(0 1)", "((0 1) 2)", "((0 1) (2 3))", "(((0 1) (2 3)) (4 5))", "(((0 1) (2 3)) ((4 5) (6 7)))"];
        assert_eq!(trees, known);
    }

    /// What ranks do on their devices, and then the owners of the sums.
    #[test]
    fn any_number_of_ranks_makes_the_same_tree() {
        for all in 1..=24 {
            for ranks in (1..=all).filter(|ranks| all % ranks == 0) {
                let count = all / ranks;
                let mut owner = Fold::new();
                for rank in 0..ranks {
                    let schedule = Schedule::of(rank * count, count, all);
                    let mut places = vec![String::new(); schedule.places()];
                    let mut computed = String::new();
                    for (leaf, step) in schedule.steps.iter().enumerate() {
                        if let Some(place) = step.save_to {
                            places[place] = computed;
                        }
                        computed = (rank * count + leaf).to_string();
                        computed = step.added().fold(computed, |sum, place| join(places[place].clone(), sum));
                    }
                    let (last, others) = schedule.nodes.split_last().unwrap();
                    let of_place = others.iter().zip(places).chain([(last, computed)]);
                    of_place.for_each(|(node, sum)| owner.push(*node, sum, join));
                }
                assert_eq!(owner.finish(join).unwrap(), tree(all), "{all} leaves on {ranks} ranks");
            }
        }
    }

    #[test]
    fn places_are_as_many_as_the_tree_is_high() {
        let places = [1, 2, 4, 8, 64].map(|all| Schedule::of(0, all, all).places());
        assert_eq!(places, [0, 1, 2, 3, 6]);
        assert_eq!(Schedule::of(4, 4, 8).places(), 2);
    }
}

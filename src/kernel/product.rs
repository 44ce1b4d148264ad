//! Matrix products, as far as the choice of a kernel depends on them.

/// Longest sum of one dispatch; longer ones are cut and added up. Mesa's llvmpipe (22.3.6, Vulkan and
/// GL) silently ends every loop of an invocation after 65 535 iterations in all, inner loops counted,
/// so no kernel here may come near that.
pub(crate) const MAX_SUM: usize = 32_768;

/// Which operand of C = op(A) op(B) is transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// A B
    NN,
    /// A B^T
    NT,
    /// A^T B
    TN,
}

impl Layout {
    /// All three.
    pub const ALL: [Self; 3] = [Self::NN, Self::NT, Self::TN];
}

/// What tuning needs to know of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProductKind {
    /// Which operand is transposed.
    pub layout: Layout,
    /// m, n, k.
    pub size: [usize; 3],
    /// Whether both operands are f16.
    pub half: bool,
    /// Whether the upper and the lower half of C have an operand B each.
    pub pair: bool,
}

/// Products that are alike for the choice of a kernel: the layout, m, n, k rounded up to powers of two,
/// the type of the operands, and whether there are two operands B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShapeClass {
    /// Which operand is transposed.
    pub layout: Layout,
    /// m, n, k, each a power of two.
    pub size: [usize; 3],
    /// Whether both operands are f16.
    pub half: bool,
    /// Whether the upper and the lower half of C have an operand B each.
    pub pair: bool,
}

impl ShapeClass {
    /// The class of one product.
    pub fn of(product: ProductKind) -> Self {
        let ProductKind { layout, size, half, pair } = product;
        Self { layout, size: size.map(|n| n.max(1).next_power_of_two()), half, pair }
    }
}

//! What a size or a cost can be: at least and at most.

/// Bounds that never overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub least: u64,
    pub most: u64,
}

impl Range {
    /// Anything.
    pub const UNKNOWN: Range = Range { least: 0, most: u64::MAX };

    /// One value.
    pub fn exactly(value: u64) -> Self {
        Range { least: value, most: value }
    }

    /// Nothing, or as much as this.
    pub fn up_to(most: u64) -> Self {
        Range { least: 0, most }
    }

    /// Both together.
    pub fn add(self, other: Range) -> Self {
        Range {
            least: self.least.saturating_add(other.least),
            most: self.most.saturating_add(other.most),
        }
    }

    /// The one as often as the other says.
    pub fn multiply(self, other: Range) -> Self {
        Range {
            least: self.least.saturating_mul(other.least),
            most: self.most.saturating_mul(other.most),
        }
    }

    /// So much for each, rounded up.
    pub fn each(self, factor: f64) -> Self {
        // What is too large for an integer becomes the largest one.
        let of = |value: u64| (value as f64 * factor).ceil() as u64;
        Range { least: of(self.least), most: of(self.most) }
    }

    /// Whichever it is.
    pub fn union(self, other: Range) -> Self {
        Range { least: self.least.min(other.least), most: self.most.max(other.most) }
    }
}

//! What evaluations may cost: each of its own, and several together.
//! Source: `pkg/apis/cel/config.go` of k8s.io/apiserver.

use crate::program::EvaluateError;

/// The most steps that one evaluation may take.
pub const CALL_LIMIT: u64 = 1_000_000;

/// The most that all rules may take for one object, or all expressions of a policy for one write.
pub const OBJECT_BUDGET: u64 = 10_000_000;

/// The most that all conditions of a policy or of a webhook may take for one write.
pub const CONDITIONS_BUDGET: u64 = OBJECT_BUDGET / 4;

/// What is left for evaluations that share a budget.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: u64,
    is_spent: bool,
}

impl Budget {
    /// Nothing of it is spent yet.
    pub fn new(steps: u64) -> Self {
        Budget { left: steps, is_spent: false }
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether an evaluation has asked for more than there was: nothing is evaluated any more.
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// Takes the cost of an evaluation.
    ///
    /// # Errors
    /// [`EvaluateError::Budget`] where it is more than is left.
    pub fn spend(&mut self, cost: u64) -> Result<(), EvaluateError> {
        match self.left.checked_sub(cost) {
            Some(left) if !self.is_spent => {
                self.left = left;
                Ok(())
            }
            _ => {
                self.is_spent = true;
                Err(EvaluateError::Budget)
            }
        }
    }
}

//! Owns the amount of work that one file may cause in one window. Work is counted in bytes and entries looked at,
//! not in time: the same file always gets the same answer.

use std::cell::Cell;

use crate::reason::Reason;

/// Units of work that a file gets in each window: about one second of one CPU.
pub const WORK_PER_WINDOW: u64 = 512 << 20;

/// What is left of a file's work.
#[derive(Debug)]
pub struct Work {
    left: Cell<u64>,
}

impl Default for Work {
    fn default() -> Self {
        Self::of(WORK_PER_WINDOW)
    }
}

impl Work {
    /// Grants an amount.
    #[must_use]
    pub fn of(amount: u64) -> Self {
        Self {
            left: Cell::new(amount),
        }
    }

    /// Takes some of it, or says that it is used up.
    #[inline]
    pub fn spend(&self, amount: u64) -> Result<(), Reason> {
        match self.left.get().checked_sub(amount) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(0);
                Err(Reason::WorkLimit)
            }
        }
    }

    /// Takes what an entry with so many attributes costs, whether they take bytes or not. Compilers write up to thirty;
    /// far more are written to hurt, and cost more.
    #[inline]
    pub fn spend_entry(&self, attributes: usize) -> Result<(), Reason> {
        let attributes = attributes as u64;
        self.spend(match attributes {
            0..=64 => attributes,
            _ => attributes.saturating_mul(32),
        })
    }

    /// Grants the whole amount again: a new window began.
    pub fn renew(&self) {
        self.left.set(WORK_PER_WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_stays_used_up_until_renewed() {
        let work = Work::of(10);
        assert_eq!(work.spend(10), Ok(()));
        assert_eq!(work.spend(1), Err(Reason::WorkLimit));
        work.renew();
        assert_eq!(work.spend(1), Ok(()));
    }
}

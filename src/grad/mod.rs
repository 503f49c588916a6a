//! Reverse-mode differentiation: one walk, one page of rules.

//! Quantities, clock and randomness seams, backoff, error-chain printing.

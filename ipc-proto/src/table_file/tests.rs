//! Tests of the table format.

//! Revisioned objects: a memory index in front of a durable driver.

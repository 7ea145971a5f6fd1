//! Suites over the whole of Causeway, and the laboratory they run in.

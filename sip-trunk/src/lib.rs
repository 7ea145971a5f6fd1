//! SIP towards PBXs and carriers, sans-IO.

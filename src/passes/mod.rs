//! Graph to equal, cheaper graph: fold, cse, dce, simplify.

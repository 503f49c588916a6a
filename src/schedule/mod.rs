//! Graph with bound sizes to loop nests, products and a memory plan.

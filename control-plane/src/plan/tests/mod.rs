mod cases;
mod model;
mod props;
mod splits;
mod views;
mod world;

use super::embed;
use crate::cpu::pool::Pool;
use crate::linear::cpu::Matrix;
use crate::weight::Weight;

#[test]
fn rows_are_looked_up() {
    let table = Weight::from_f32(3, 2, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let pool = Pool::new(1);
    let table = Matrix::new(&table, &pool);
    let mut out = [f32::NAN; 6];
    embed(&pool, &table, &[2, 0, 3], &mut out);
    assert_eq!(out, [4.0, 5.0, 0.0, 1.0, 0.0, 0.0], "the table has no row 3");
}

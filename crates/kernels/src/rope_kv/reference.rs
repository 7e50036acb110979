//! The rotation as loops.

/// Rotates the first `rotary_dim` elements of one head in place.
pub fn rotate(head: &mut [f64], rotary_dim: usize, theta: f64, position: usize) {
    let half = rotary_dim / 2;
    for i in 0..half {
        let angle = position as f64 * theta.powf(-2.0 * i as f64 / rotary_dim as f64);
        let (sin, cos) = angle.sin_cos();
        let (a, b) = (head[i], head[i + half]);
        head[i] = a * cos - b * sin;
        head[i + half] = b * cos + a * sin;
    }
}

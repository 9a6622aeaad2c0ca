#version 330
// Triangles as a light sees them.

uniform mat4 clip_from_world;

in vec3 position;
#ifdef HOLES
in vec2 uv;
out vec2 texture_uv;
flat out int triangle;
#endif

void main() {
    gl_Position = clip_from_world * vec4(position, 1.0);
#ifdef HOLES
    texture_uv = uv;
    triangle = gl_VertexID / 3;
#endif
}

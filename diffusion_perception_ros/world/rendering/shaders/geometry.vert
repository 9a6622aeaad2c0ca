#version 330
// Triangles into the optical frame of the camera.

uniform mat4 camera_from_world;
uniform mat4 clip_from_camera;

in vec3 position;
in vec3 normal;
in vec2 uv;

out vec3 camera_position;
out vec3 camera_normal;
out vec2 texture_uv;
flat out int triangle;  // in the buffers; what is drawn is a selection of them

void main() {
    camera_position = (camera_from_world * vec4(position, 1.0)).xyz;
    camera_normal = mat3(camera_from_world) * normal;
    texture_uv = uv;
    triangle = gl_VertexID / 3;
    gl_Position = clip_from_camera * vec4(camera_position, 1.0);
}

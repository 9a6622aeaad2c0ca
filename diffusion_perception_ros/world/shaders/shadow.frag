#version 330
// Depth only, with the holes of cut-out textures.

uniform sampler2D materials;
uniform sampler2DArray textures;

in vec2 texture_uv;

void main() {
    int row_triangles = textureSize(materials, 0).x / 2;
    ivec2 texel = ivec2(2 * (gl_PrimitiveID % row_triangles), gl_PrimitiveID / row_triangles);
    if (texelFetch(materials, texel + ivec2(1, 0), 0).b > 0.5) {
        float layer = texelFetch(materials, texel, 0).a;
        if (texture(textures, vec3(texture_uv, layer)).a < 0.5) discard;
    }
}
